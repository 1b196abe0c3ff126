"""Rounds to tables: medians, ratios, and the part of docs/performance.md that holds them. Pure but for `write`."""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING

from loadtest.gateway_bench.processes import BenchError
from loadtest.gateway_bench.workloads import FIGURES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtest.gateway_bench.workloads import Figure

    Record = Mapping[str, Mapping[str, float | str]]
    """What was found in a round, by workload and name."""
    Medians = dict[str, dict[Figure, float]]

BEGIN = "<!-- bench-gateway: written by `make bench-gateway ARGS=--write` -->"
END = "<!-- bench-gateway end -->"
BETWEEN = re.compile(re.escape(BEGIN) + r"\n.*?" + re.escape(END), re.DOTALL)
LARGE = 100


def per_unit(found: Mapping[str, float | str], cpu_s: float) -> dict[str, float | str]:
    """What the load generator found, with the CPU of a request and of a chunk in microseconds."""
    out = dict(found)
    for units, name in (("ok", "cpu_us_per_request"), ("chunks", "cpu_us_per_chunk")):
        if number := float(found.get(units, 0)):
            out[name] = cpu_s / number * 1e6
    return out


def medians(rounds: Mapping[str, Sequence[Record]]) -> Medians:
    """Of each target the median of each figure; one that was never measured is not there."""
    out: Medians = {}
    for name, records in rounds.items():
        out[name] = {}
        for figure in FIGURES:
            found = [record.get(figure.workload, {}).get(figure.field) for record in records]
            if values := [float(value) for value in found if value is not None]:
                out[name][figure] = median(values)
    return out


def spread(rounds: Mapping[str, Sequence[Record]], figure: Figure) -> dict[str, float]:
    """Of each target how far the rounds are apart, in parts of the median: the noise."""
    out = {}
    for name, records in rounds.items():
        found = [record.get(figure.workload, {}).get(figure.field) for record in records]
        if values := [float(value) for value in found if value is not None]:
            out[name] = (max(values) - min(values)) / median(values)
    return out


def shown(value: float | None, digits: int = 0) -> str:
    """A figure for people."""
    return "–" if value is None else f"{value:,.{digits}f}"


def figures_table(found: Medians) -> str:
    """A line for each target."""
    figures = [figure for figure in FIGURES if any(figure in of for of in found.values())]
    rows = [[name, *(shown(of.get(figure), figure.digits) for figure in figures)] for name, of in found.items()]
    return markdown(["gateway", *(figure.heading for figure in figures)], rows)


def ratios_table(found: Medians, name: str = "ours") -> str:
    """The target's figures in parts of each other one's."""
    figures = [figure for figure in FIGURES if figure.in_ratios and figure in found[name]]
    others = [other for other in found if other != name and any(figure in found[other] for figure in figures)]
    rows = [
        [f"{name} / {other}"]
        + [shown(found[name][f] / found[other][f], 2) if found[other].get(f) else "–" for f in figures]
        for other in others
    ]
    return markdown(["", *(figure.heading for figure in figures)], rows)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in the first column, numbers in the others."""
    rule = ["---", *["--:"] * (len(headings) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, rule, *rows))


def report(rounds: Mapping[str, Sequence[Record]], versions: Mapping[str, str], machine: str, command: str) -> str:
    """What goes into the document."""
    found = medians(rounds)
    noise = spread(rounds, next(f for f in FIGURES if f.field == "cpu_us_per_request"))
    apart = ", ".join(f"{name} {part:.0%}" for name, part in noise.items())
    about = "; ".join(f"{name} {text}" for name, text in versions.items())
    count = max(map(len, rounds.values()))
    return (
        f"`{command}`: medians of {count} rounds in turns, one worker on one core; load generator and engine share "
        f"another. {machine}.\n{about}.\n\n{figures_table(found)}\n"
        f"Ratios from the same run:\n\n{ratios_table(found)}\n"
        f"(Largest less smallest round in parts of the median, CPU of a request: {apart}.)\n"
    )


def write(path: Path, text: str) -> None:
    """Put the text between the document's markers. Raises BenchError when it has none."""
    old = path.read_text()
    new, count = BETWEEN.subn(lambda _: f"{BEGIN}\n{text}{END}", old)
    if count != 1:
        raise BenchError(f"{path} must hold once:\n{BEGIN}\n{END}")
    path.write_text(new)
