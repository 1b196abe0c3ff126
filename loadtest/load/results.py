"""A run's folder: `requests.ndjson` (a line a request), `percentiles.csv`, `summary.json`, `report.html`."""

from __future__ import annotations

import csv
import json
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from loadtest.load import figures, outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtest.load.conduct import Findings
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

    def finish(
        self, run: Run, findings: Findings, target: Target, workers: int, memory: Sequence[tuple[float, float]]
    ) -> bool:
        """Write all that is known now; whether the objectives are met."""
        self.close()
        facts = {
            "run": {"url": run.url, "model": target.model, "answers": target.answers, "scenario": run.scenario},
            "began": self._begun.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "generator": {"workers": workers, "python": platform.python_version(), "machine": platform.platform()},
            "memory_bytes": [[round(at_s, 1), value] for at_s, value in memory],
        }
        summary = findings.summary() | facts
        (self._path / SUMMARY).write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
        write_percentiles(self._path / PERCENTILES, summary["figures"])
        return findings.met


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
