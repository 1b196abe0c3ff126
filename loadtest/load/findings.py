"""What a run found out, step by step, as `summary.json` has it. No logic but the verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from loadtest.load.scenario import Phase, Scenario, dump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.load import figures
    from loadtest.load.machine import Use

Kind = Literal["load", "unloaded", "feeling", "level"]
"""The scenario's own phases; a ramp's steps: for the latencies without load, short ones, and those that count."""


@dataclass(frozen=True)
class Step:
    """One step of a run, as reports show it."""

    number: int
    phases: Sequence[Phase]
    table: dict[str, Any]
    """Of all its requests."""
    judged: list[figures.Judged]
    kind: Kind = "load"
    use: Use | None = None
    """Of the machine, meanwhile."""
    disturbed: bool = False
    """Whether something but the service may be why it missed."""

    @property
    def lasts_s(self) -> float:
        """Its phases together."""
        return sum(phase.lasts_s for phase in self.phases)

    @property
    def per_s(self) -> float:
        """Mean rate."""
        return sum(phase.lasts_s * phase.per_s for phase in self.phases) / self.lasts_s

    @property
    def met(self) -> bool:
        """Whether all objectives were."""
        return all(each.met for each in self.judged)


@dataclass
class Findings:
    """All that a run found out."""

    scenario: Scenario
    steps: list[Step] = field(default_factory=list)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Figures by traffic, and of all under `all`; of a ramp, at its capacity."""
    judged: list[figures.Judged] = field(default_factory=list)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    """Examples, with what was answered alone."""
    capacity_per_s: float | None = None
    capacity_doubtful: bool = False
    """The machine was disturbed throughout, so a miss had to be believed that may not be the service's."""
    unloaded: dict[str, float] = field(default_factory=dict)
    """Lower quartiles of the latencies without load, of a ramp."""
    shown_step: int | None = None
    """The step that the tables are of; None: all."""

    @property
    def met(self) -> bool:
        """The verdict."""
        return all(each.met for each in self.judged)

    def summary(self) -> dict[str, Any]:
        """Make `summary.json`."""
        return {
            "met": self.met,
            "capacity_per_s": self.capacity_per_s,
            "capacity_doubtful": self.capacity_doubtful,
            "unloaded": self.unloaded,
            "shown_step": self.shown_step,
            "objectives": [_plain(each) for each in self.judged],
            "figures": self.tables,
            "steps": [
                {
                    "number": step.number,
                    "kind": step.kind,
                    "per_s": step.per_s,
                    "lasts_s": step.lasts_s,
                    "met": step.met,
                    "missed": [each.title for each in step.judged if not each.met],
                    "figures": step.table,
                    "machine": asdict(step.use) if step.use else None,
                    "disturbed": step.disturbed,
                }
                for step in self.steps
            ],
            "wrong": self.wrong,
            "scenario": dump(self.scenario),
        }


def _plain(judged: figures.Judged) -> dict[str, Any]:
    value = None if math.isnan(judged.value) or math.isinf(judged.value) else judged.value
    return {"of": judged.title, "most": judged.most, "value": value, "met": judged.met, "measured": judged.asked}
