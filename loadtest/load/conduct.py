"""The course of a run: its steps, the questions asked once more, the verdict. Knows generators only as a `Crew`."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from loadtest.load import figures, plan
from loadtest.load.scenario import Objective, Phase, Scenario, dump
from loadtest.load.search import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtest.load.outcome import Outcome
    from loadtest.load.plan import Planned

ASKED_AGAIN = 100
"""Different wrong answers that are asked again; any more count as changed by the load."""


class Crew(Protocol):
    """The generators."""

    def play(self, step: int, phases: Sequence[Phase]) -> list[Outcome]:
        """Send a step; every request's outcome. Raises CrewError when a generator is lost."""

    def alone(self, step: int, planned: Planned) -> str:
        """Ask one request again, with nothing beside it; its answer."""


class CrewError(Exception):
    """The generators did not do what they were told; no figure of the run can be believed."""


@dataclass(frozen=True)
class Step:
    """One step of a run, as reports show it."""

    number: int
    per_s: float
    lasts_s: float
    table: dict[str, Any]
    """Of all its requests."""
    judged: list[figures.Judged]

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
            "shown_step": self.shown_step,
            "objectives": [_plain(each) for each in self.judged],
            "figures": self.tables,
            "steps": [
                {
                    "number": step.number,
                    "per_s": step.per_s,
                    "lasts_s": step.lasts_s,
                    "met": step.met,
                    "missed": [each.title for each in step.judged if not each.met],
                    "figures": step.table,
                }
                for step in self.steps
            ],
            "wrong": self.wrong,
            "scenario": dump(self.scenario),
        }


def _plain(judged: figures.Judged) -> dict[str, Any]:
    value = None if math.isnan(judged.value) or math.isinf(judged.value) else judged.value
    return {"of": judged.title, "most": judged.most, "value": value, "met": judged.met, "measured": judged.asked}


def conduct(
    scenario: Scenario,
    crew: Crew,
    memory_bytes: Callable[[], Sequence[float]],
    say: Callable[[str], None],
    at_least_per_s: float = 0.0,
) -> Findings:
    """Run a scenario. Raises CrewError."""
    findings = Findings(scenario)
    outcomes = _ramp(findings, crew, say, at_least_per_s) if scenario.ramp else _phases(findings, crew, say)
    extra = {"changed": _changed(findings, crew, outcomes), "memory_growth": figures.growth(memory_bytes())}
    samples = by_traffic(scenario, outcomes)
    findings.tables = {name or "all": figures.table(sample) for name, sample in samples.items()}
    findings.judged += figures.judge(scenario.objectives, samples, extra)
    return findings


def by_traffic(scenario: Scenario, outcomes: Sequence[Outcome]) -> dict[str, figures.Sample]:
    """Figures of each traffic, and under ``""`` of all."""
    parts: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        parts[outcome.traffic].append(outcome)
    samples = {"": figures.sample(outcomes, settle_s=scenario.settle_s)}
    for traffic in scenario.traffic:
        samples[traffic.name] = figures.sample(parts[traffic.name], settle_s=scenario.settle_s)
    return samples


def _phases(findings: Findings, crew: Crew, say: Callable[[str], None]) -> list[Outcome]:
    phases = findings.scenario.phases
    say(f"{sum(phase.lasts_s for phase in phases):.0f} s of load")
    outcomes = crew.play(0, phases)
    _step(findings, 0, phases, outcomes, say)
    return outcomes


def _ramp(findings: Findings, crew: Crew, say: Callable[[str], None], at_least_per_s: float) -> list[Outcome]:
    ramp = findings.scenario.ramp
    if ramp is None:
        raise ValueError("no ramp")
    search, number = Search(ramp), 0
    best: list[Outcome] = []
    while search.rate is not None:
        phase = search.phase()
        outcomes = crew.play(number, [phase])
        step = _step(findings, number, [phase], outcomes, say)
        if step.met or not best:
            best = outcomes
            findings.shown_step = number
        search.tell(met=step.met)
        number += 1
    findings.capacity_per_s = search.met
    # A ramp whose first rate was too much, or that ended below what was asked for, has missed.
    goal = max(at_least_per_s, ramp.first_per_s)
    findings.judged.append(figures.Judged(f"capacity short of {goal:g}/s", 0, max(0.0, goal - search.met)))
    limit = "at least " if search.missed is None else ""
    say(f"capacity: {limit}{search.met:.3g} requests/s")
    return best


def _step(
    findings: Findings, number: int, phases: Sequence[Phase], outcomes: Sequence[Outcome], say: Callable[[str], None]
) -> Step:
    """Judge one step by what is known at its end: not by what is asked again later, nor by memory."""
    scenario = findings.scenario
    lasts_s = sum(phase.lasts_s for phase in phases)
    per_s = sum(phase.lasts_s * phase.per_s for phase in phases) / lasts_s
    samples = by_traffic(scenario, outcomes)
    judged = figures.judge([each for each in scenario.objectives if _is_of_a_step(each)], samples, {})
    step = Step(number, per_s, lasts_s, figures.table(samples[""]), judged)
    findings.steps.append(step)
    all_of = samples[""]
    missed = ", ".join(f"{each.title} {each.value:.3g} > {each.most:g}" for each in judged if not each.met)
    say(
        f"step {number}: {per_s:.3g}/s for {lasts_s:.0f} s: {all_of.sent} sent, {all_of.answered} answered, "
        f"{all_of.right} right; {'missed ' + missed if missed else 'met'}"
    )
    return step


def _is_of_a_step(objective: Objective) -> bool:
    return objective.of not in {"changed", "memory_growth"}


def _changed(findings: Findings, crew: Crew, outcomes: Sequence[Outcome]) -> float:
    """Ask the wrong ones again, alone: the share of all answers that only the load made wrong."""
    answered = sum(outcome.answered for outcome in outcomes)
    if not answered:
        return math.nan
    plans: dict[int, list[Planned]] = {}
    alone: dict[tuple[int, int, int, int, bool], str] = {}
    changed = 0
    for outcome in outcomes:
        if not outcome.answered or outcome.right:
            continue
        if outcome.step not in plans:
            plans[outcome.step] = _plan_of(findings, outcome.step)
        one = plans[outcome.step][outcome.number]
        asked = (one.traffic, one.question, one.earlier_turns, one.max_tokens, one.streamed)
        if asked not in alone and len(alone) < ASKED_AGAIN:
            alone[asked] = crew.alone(outcome.step, one)
        again = alone.get(asked)
        changed += again != outcome.answer
        if len(findings.wrong) < figures.EXAMPLES:
            findings.wrong.append(
                {"traffic": outcome.traffic, "question": one.question, "answer": outcome.answer, "alone": again}
            )
    return changed / answered


def _plan_of(findings: Findings, step: int) -> list[Planned]:
    scenario = findings.scenario
    found = findings.steps[step]
    phases = scenario.phases or [Phase(found.lasts_s, found.per_s)]
    return plan.requests(phases, scenario.traffic, plan.seed_of(scenario, step))
