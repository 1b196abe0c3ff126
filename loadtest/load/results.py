"""A run's folder: `requests.ndjson` (a line a request), `percentiles.csv`, `summary.json`, `report.html`."""

from __future__ import annotations

import csv
import json
import math
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from loadtest.load import figures, outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtest.load.findings import Findings
    from loadtest.load.memory import Timed
    from loadtest.load.outcome import Outcome
    from loadtest.load.settings import Run
    from loadtest.load.target import Target

REQUESTS, PERCENTILES, SUMMARY, REPORT = "requests.ndjson", "percentiles.csv", "summary.json", "report.html"


class NoRunError(Exception):
    """The folder holds no finished run."""


class Folder:
    """Where a run is written while it goes on."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / SUMMARY).unlink(missing_ok=True)  # of an earlier run: this one has no verdict yet
        self._path = path
        self._requests = (path / REQUESTS).open("wb")
        self._begun = datetime.now(UTC)

    def keep(self, one: Outcome) -> None:
        """Take one request."""
        self._requests.write(outcome.line(one))

    def close(self) -> None:
        """End the file of requests."""
        self._requests.close()

    def finish(self, run: Run, findings: Findings, target: Target, workers: int, memory: Timed) -> bool:
        """Write all that is known now; whether the objectives are met."""
        self.close()
        facts = {
            "run": {"url": run.url, "model": target.model, "answers": target.answers, "scenario": run.scenario},
            "began": self._begun.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "generator": {"workers": workers, "python": platform.python_version(), "machine": platform.platform()},
            "memory_bytes": {
                name: [[round(at_s, 1), value] for at_s, value in timed] for name, timed in memory.items()
            },
            "memory": {name: memory_of(timed) for name, timed in memory.items()},
        }
        summary = findings.summary() | facts
        (self._path / SUMMARY).write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
        write_percentiles(self._path / PERCENTILES, summary["figures"])
        return findings.met


def memory_of(timed: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Sum a series of memory up: MiB at its begin and end, and how it grows after its first quarter."""
    values = [value for _, value in timed]
    grown = {"share": figures.growth(values), "mib_per_h": figures.slope_mib_h(timed)}
    return {
        "first_mib": round(values[0] / figures.MIB, 1),
        "last_mib": round(values[-1] / figures.MIB, 1),
        **{name: None if math.isnan(value) else round(value, 4) for name, value in grown.items()},
    }


def write_percentiles(path: Path, tables: dict[str, dict[str, Any]]) -> None:
    """One row for each traffic and latency, in seconds."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["traffic", "latency", *(f"p{rank}" for rank in figures.PERCENTILES)])
        for traffic, table in tables.items():
            for name in figures.LATENCIES:
                rows.writerow([traffic, name, *table[name].values()])


def read(path: Path) -> dict[str, Any]:
    """Read a run's summary. Raises NoRunError."""
    try:
        summary: dict[str, Any] = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise NoRunError(f"{path} holds no finished run: give a folder that `make load` has written") from exc
    return summary
