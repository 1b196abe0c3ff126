"""What a run is told, through the environment: the same for a process here and for pods of a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from loadtest.load.answers import Way  # noqa: TC001 - msgspec reads the annotations
from loadtest.load.scenario import Changes, Scenario, ScenarioError, load

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN, KEY = "LOAD_RUN", "LOAD_KEY"


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run. The key is not part of it: it stays out of command lines and of files."""

    scenario: str
    url: str
    """Of the service, without `/v1`."""
    folder: str
    model: str = ""
    """Asked of `/v1/models` when empty."""
    answers: Way | None = None
    """How answers are checked; by the model's name when None."""
    metrics_url: str = ""
    """The gateway's `/metrics`, for its memory; empty: not looked at."""
    engine_port: int = 0
    """Of an engine on this machine, for its memory; 0: not looked at."""
    per_s: float | None = None
    lasts_s: float | None = None
    timeout_s: float = 120.0
    """Longest silence of the service on a connection."""
    at_least_per_s: float = 0.0
    """Of a ramp: a smaller capacity is a miss."""

    @property
    def out(self) -> Path:
        """The folder as a path."""
        return Path(self.folder)

    def load(self) -> Scenario:
        """Read the scenario with this run's changes. Raises ScenarioError."""
        return load(self.scenario, Changes(self.per_s, self.lasts_s))


def to_environ(run: Run, key: str) -> dict[str, str]:
    """Make the variables."""
    return {RUN: msgspec.json.encode(run).decode(), KEY: key}


def from_environ(environ: Mapping[str, str] = os.environ) -> tuple[Run, str]:
    """Read the run and the key. Raises ScenarioError when there is none."""
    try:
        return msgspec.json.decode(environ[RUN].encode(), type=Run), environ.get(KEY, "")
    except KeyError as exc:
        raise ScenarioError(f"{RUN} is not set: start with `python -m loadtest.load run`") from exc
    except msgspec.DecodeError as exc:
        raise ScenarioError(f"{RUN}: {exc}") from exc
