"""The report of a run, and the comparison of two: one HTML file each, with nothing to fetch."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from loadtest.load import draw, figures, outcome, results

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

COMPARISON = "comparison.html"
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; margin: .5rem 0 1.5rem }}
td, th {{ border-bottom: 1px solid #ddd; padding: .2rem .8rem .2rem 0; text-align: right }}
td:first-child, th:first-child, td.text {{ text-align: left }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.05rem; margin-top: 2rem }}
.met {{ color: #17692d }} .missed {{ color: #b3261e; font-weight: 600 }}
svg {{ max-width: 100%; height: auto }} pre {{ white-space: pre-wrap }}
</style></head><body>
"""


def report(folder: Path) -> str:
    """Make a run's page. Raises results.NoRunError."""
    summary = results.read(folder)
    outcomes = list(outcome.read(folder / results.REQUESTS))
    shown = summary["shown_step"]
    counted = [one for one in outcomes if shown is None or one.step == shown]
    verdict = "met" if summary["met"] else "missed"
    parts = [
        _HEAD.format(title=escape(summary["scenario"]["title"])),
        f"<h1>{escape(summary['scenario']['title'])}: <span class={verdict}>objectives {verdict}</span></h1>",
        f"<p>{escape(_of(summary))}</p>",
    ]
    if summary["capacity_per_s"] is not None:
        parts.append(_capacity(summary))
    parts += ["<h2>Objectives</h2>", _objectives(summary["objectives"]), "<h2>Figures</h2>", _figures(summary)]
    parts += [
        _drawn("Over time", draw.over_time(outcomes)),
        _drawn("Distributions", draw.distributions([("", counted)])),
    ]
    if summary["capacity_per_s"] is not None:
        parts += [_drawn("The search", draw.ramp(summary["steps"], summary["capacity_per_s"])), _steps(summary)]
    if summary["memory_bytes"]:
        parts += [_drawn("Memory", draw.memory(summary["memory_bytes"])), _memory(summary["memory"])]
    faults = [[fault, str(count)] for fault, count in summary["figures"]["all"]["faults"].items()]
    if faults:
        parts += ["<h2>Failures</h2>", _table(["what", "requests"], faults)]
    if summary["wrong"]:
        wrong = [[one["traffic"], one["answer"], str(one["alone"])] for one in summary["wrong"]]
        parts += ["<h2>Wrong answers</h2>", _table(["traffic", "under load", "asked again alone"], wrong)]
    return "".join(parts) + "</body></html>\n"


def _capacity(summary: dict[str, Any]) -> str:
    said = [f"Capacity: <b>{summary['capacity_per_s']:.3g} requests/s</b>; the figures below are of it."]
    if unloaded := summary["unloaded"]:
        medians = [
            f"{title} {unloaded[name]:.3f} s"
            for name, title in draw.NAMES.items()
            if name in unloaded and name != "itl_s"
        ]
        said.append(f"Without load (lower quartiles): {', '.join(medians)}.")
    scaled = [
        f"{each['of']} P{each['percentile']:g} at most {each['most']:.3g} s"
        for each in summary["scenario"]["slo"]
        if each.get("times_unloaded")
    ]
    if scaled:
        said.append(f"The objectives are the larger of the scenario's and its multiple of these: {', '.join(scaled)}.")
    disturbed = [step for step in summary["steps"] if step["disturbed"]]
    if disturbed:
        most = max(((step["machine"] or {}).get("others", 0.0) for step in disturbed), default=0.0)
        said.append(
            f"{len(disturbed)} of {len(summary['steps'])} steps were disturbed: up to {most:.0%} of this machine's CPU "
            "went to other processes, or the generator was late."
        )
    if summary["capacity_doubtful"]:
        said.append("<b>It was never quiet enough: the capacity may be higher.</b>")
    return f"<p>{' '.join(said)}</p>"


def _memory(series: dict[str, dict[str, float | None]]) -> str:
    rows = []
    for name, found in series.items():
        share = "–" if found["share"] is None else f"{found['share']:+.1%}"
        slope = "–" if found["mib_per_h"] is None else f"{found['mib_per_h']:+.1f}"
        rows.append([name, f"{found['first_mib']}", f"{found['last_mib']}", share, slope])
    return _table(["MiB", "at first", "at last", "last quarter to second", "MiB an hour, after a quarter"], rows)


def _of(summary: dict[str, Any]) -> str:
    run, generator = summary["run"], summary["generator"]
    return (
        f"{run['url']}, model {run['model']}, from {summary['began']} to {summary['ended']}; answers checked: "
        f"{run['answers']}; {generator['workers']} generator(s), Python {generator['python']}, {generator['machine']}"
    )


def _drawn(title: str, figure: Figure) -> str:
    return f"<h2>{escape(title)}</h2>{draw.svg(figure)}"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, raw: bool = False) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{cell if raw else escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _objectives(judged: Sequence[dict[str, Any]]) -> str:
    rows = []
    for each in judged:
        verdict = "met" if each["met"] else "missed"
        said = verdict if each["measured"] else "nothing to measure"
        value = "–" if each["value"] is None else f"{each['value']:.3g}"
        rows.append([escape(each["of"]), f"{each['most']:g}", value, f"<span class={verdict}>{said}</span>"])
    return _table(["what", "at most", "found", ""], rows, raw=True)


def _cells(table: dict[str, Any]) -> list[str]:
    cells = [f"{table['per_s']:.3g}", *(str(table[name]) for name in ("sent", "answered", "right", "cached"))]
    for name in draw.NAMES:
        cells += ["–" if value is None else f"{value:.3f}" for value in table[name].values()]
    return cells


def _figures(summary: dict[str, Any]) -> str:
    titles = ["traffic", "per s", "sent", "answered", "right", "cached"]
    titles += [f"{title} P{rank}" for title in draw.NAMES.values() for rank in figures.PERCENTILES]
    return _table(titles, ([name, *_cells(table)] for name, table in summary["figures"].items()))


def _steps(summary: dict[str, Any]) -> str:
    rows = []
    for step in summary["steps"]:
        p95 = [step["figures"][name]["p95"] for name in ("ttft_s", "e2e_s")]
        found = step["machine"]
        rows.append(
            [
                f"{step['number']} {step['kind']}",
                f"{step['per_s']:.3g}",
                f"{step['lasts_s']:.0f}",
                *("–" if value is None else f"{value:.3f}" for value in p95),
                "–" if found is None else f"{found['busy']:.0%}",
                "–" if found is None else f"{found['others']:.0%}",
                ", ".join(step["missed"]) + (" (disturbed)" if step["disturbed"] else ""),
            ]
        )
    titles = ["step", "per s", "s", "first token P95", "whole answer P95", "machine busy", "by others", "missed"]
    return _table(titles, rows)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """List the figures of two summaries side by side: name, before, after."""
    found: list[tuple[str, float | None, float | None]] = [
        ("capacity per s", before["capacity_per_s"], after["capacity_per_s"])
    ]
    for traffic in before["figures"]:
        if traffic not in after["figures"]:
            continue
        old, new = before["figures"][traffic], after["figures"][traffic]
        found.append((f"{traffic}: per s", old["per_s"], new["per_s"]))
        found += [(f"{traffic}: {name}", _share(old, name), _share(new, name)) for name in ("answered", "right")]
        for name, title in draw.NAMES.items():
            found += [(f"{traffic}: {title} {rank} [s]", old[name][rank], new[name][rank]) for rank in old[name]]
    return [row for row in found if row[1] is not None or row[2] is not None]


def _share(table: dict[str, Any], name: str) -> float | None:
    of = table["answered" if name == "right" else "sent"]
    return table[name] / of if of else None


def change_cells(row: tuple[str, float | None, float | None]) -> list[str]:
    """Write one figure of two runs, with its change in percent."""
    name, old, new = row
    change = "–" if not old or new is None else f"{(new / old - 1) * 100:+.1f} %"
    return [name, *("–" if value is None else f"{value:.4g}" for value in (old, new)), change]


def comparison(before: Path, after: Path) -> str:
    """Make the page that compares two runs. Raises results.NoRunError."""
    runs = [(str(folder), results.read(folder)) for folder in (before, after)]
    rows = [change_cells(row) for row in changes(runs[0][1], runs[1][1])]
    drawn = []
    for name, summary in runs:
        outcomes = list(outcome.read(type(before)(name) / results.REQUESTS))
        shown = summary["shown_step"]
        drawn.append((name, [one for one in outcomes if shown is None or one.step == shown]))
    title = f"{runs[0][1]['scenario']['title']}: two runs"
    head = _HEAD.format(title=escape(title)) + f"<h1>{escape(title)}</h1>"
    of = "".join(
        f"<p>{label}: {escape(name)}: {escape(_of(run))}</p>" for label, (name, run) in zip("AB", runs, strict=True)
    )
    table = _table(["figure", "A", "B", "change"], rows)
    return f"{head}{of}{table}{_drawn('Distributions', draw.distributions(drawn))}</body></html>\n"
