"""The course of a run: its steps, the questions asked once more, the verdict. Knows generators only as a `Crew`."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from loadtest.load import figures, machine, plan, search
from loadtest.load.findings import Findings, Step
from loadtest.load.memory import ENGINE, WITHOUT_CACHES
from loadtest.load.scenario import OF_A_RUN, Phase, Ramp, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtest.load.findings import Kind
    from loadtest.load.machine import Look
    from loadtest.load.memory import Timed
    from loadtest.load.outcome import Outcome
    from loadtest.load.plan import Planned

UNLOADED_TRIES, UNLOADED_RANK = 3, 25
"""The lower quartile is what the service takes alone, also where some of the requests were disturbed or the first."""
MOST_SETTLING = 0.25
"""Of a step, at most, is left out of its times."""
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


@dataclass
class Course:
    """A run while it goes on."""

    findings: Findings
    crew: Crew
    look: Callable[[], Look | None]
    """Looks at the machine, before and after each step."""
    say: Callable[[str], None]

    def play(self, kind: Kind, phases: Sequence[Phase]) -> tuple[Step, list[Outcome]]:
        """Send a step and judge it by what is known at its end: not by what is asked again later, nor by memory."""
        findings, number = self.findings, len(self.findings.steps)
        before = self.look()
        outcomes = self.crew.play(number, phases)
        use = machine.between(before, self.look())
        lasts_s = sum(phase.lasts_s for phase in phases)
        settle_s = min(findings.scenario.settle_s, lasts_s * MOST_SETTLING)
        samples = by_traffic(findings.scenario, outcomes, settle_s)
        asked = [each for each in findings.scenario.objectives if each.of not in OF_A_RUN]
        judged = figures.judge(asked, samples, {})
        late = [each.title.startswith("lateness_s") for each in judged if not each.met]
        disturbed = bool(use and use.disturbed) or (bool(late) and all(late))
        step = Step(number, phases, figures.table(samples[""]), judged, kind, use, disturbed)
        findings.steps.append(step)
        self.say(_told(step, samples[""]))
        return step, outcomes


def conduct(
    scenario: Scenario,
    crew: Crew,
    memory: Callable[[], Timed],
    say: Callable[[str], None],
    at_least_per_s: float = 0.0,
    look: Callable[[], Look | None] = lambda: None,
) -> Findings:
    """Run a scenario. Raises CrewError."""
    course = Course(Findings(scenario), crew, look, say)
    findings = course.findings
    if scenario.ramp:
        outcomes = _ramp(course, scenario.ramp, at_least_per_s)
    else:
        say(f"{sum(phase.lasts_s for phase in scenario.phases):.0f} s of load")
        _, outcomes = course.play("load", scenario.phases)
    timed = memory()
    extra = {
        "changed": _changed(findings, crew, outcomes),
        "memory_growth": figures.growth([value for _, value in timed.get(WITHOUT_CACHES, [])]),
        "engine_memory_growth": figures.growth([value for _, value in timed.get(ENGINE, [])]),
    }
    samples = by_traffic(findings.scenario, outcomes, scenario.settle_s)
    findings.tables = {name or "all": figures.table(sample) for name, sample in samples.items()}
    findings.judged += figures.judge(findings.scenario.objectives, samples, extra)
    return findings


def by_traffic(scenario: Scenario, outcomes: Sequence[Outcome], settle_s: float) -> dict[str, figures.Sample]:
    """Figures of each traffic, and under ``""`` of all."""
    parts: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        parts[outcome.traffic].append(outcome)
    samples = {"": figures.sample(outcomes, settle_s=settle_s)}
    for traffic in scenario.traffic:
        samples[traffic.name] = figures.sample(parts[traffic.name], settle_s=settle_s)
    return samples


def _ramp(course: Course, ramp: Ramp, at_least_per_s: float) -> list[Outcome]:
    findings = course.findings
    alone = ramp.first_per_s / 2
    phase = Phase(max(ramp.unloaded_s, search.FEELING_REQUESTS / alone), alone, counted=True)
    unloaded: list[Outcome] = []
    for _ in range(UNLOADED_TRIES):
        step, outcomes = course.play("unloaded", [phase])
        unloaded += outcomes
        if not step.disturbed:
            break
    _scale(findings, unloaded)
    found, best = search.Search(ramp), unloaded
    while found.rate is not None:
        step, outcomes = course.play("feeling" if found.feeling else "level", [found.phase()])
        better = step.kind == "level" and step.met and step.per_s > found.met
        if better or findings.shown_step is None:
            best, findings.shown_step = outcomes, step.number
        found.tell(met=step.met, disturbed=step.disturbed)
    findings.capacity_per_s, findings.capacity_doubtful = found.met, found.doubtful
    # A ramp whose first rate was too much, or that ended below what was asked for, has missed.
    goal = max(at_least_per_s, ramp.first_per_s)
    findings.judged.append(figures.Judged(f"capacity short of {goal:g}/s", 0, max(0.0, goal - found.met)))
    limit = "at least " if found.missed is None else ""
    doubt = "; the machine was disturbed throughout: it may be more" if found.doubtful else ""
    course.say(f"capacity: {limit}{found.met:.3g} requests/s{doubt}")
    return best


def _scale(findings: Findings, outcomes: Sequence[Outcome]) -> None:
    """Take the unloaded latencies, and the objectives that are multiples of them."""
    scenario = findings.scenario
    samples = by_traffic(scenario, outcomes, 0.0)
    quick = {name: figures.percentile(values, UNLOADED_RANK) for name, values in samples[""].latencies.items()}
    findings.unloaded = {name: value for name, value in quick.items() if not math.isnan(value)}
    scaled = []
    for each in scenario.slo:
        least = math.nan
        if each.times_unloaded:
            least = each.times_unloaded * figures.percentile(samples[each.traffic].latencies[each.of], UNLOADED_RANK)
        # NaN where nothing was measured: then `most` stays, as no comparison with NaN holds.
        scaled.append(replace(each, most=least) if least > each.most else each)
    findings.scenario = replace(scenario, slo=tuple(scaled))


def _told(step: Step, sample: figures.Sample) -> str:
    missed = ", ".join(f"{each.title} {each.value:.3g} > {each.most:g}" for each in step.judged if not each.met)
    machine_did = ""
    if step.disturbed and step.use:
        machine_did = f"; disturbed: {step.use.others:.0%} of the machine by others, {step.use.stolen:.0%} stolen"
    elif step.disturbed:
        machine_did = "; disturbed: the generator was late"
    return (
        f"step {step.number} ({step.kind}): {step.per_s:.3g}/s for {step.lasts_s:.0f} s: {sample.sent} sent, "
        f"{sample.answered} answered, {sample.right} right; {'missed ' + missed if missed else 'met'}{machine_did}"
    )


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
    return plan.requests(findings.steps[step].phases, scenario.traffic, plan.seed_of(scenario, step))
