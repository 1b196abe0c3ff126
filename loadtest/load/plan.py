"""What is sent when: pure and seeded. The plan does not know how the service does, so nothing that it does delays it.

That is an open loop: a closed one, whose clients wait for their answers, asks less the slower the service is, and
leaves out just the waits that users would have had (coordinated omission).
"""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtest.autoscale import workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.load.scenario import Phase, Scenario, Traffic


@dataclass(frozen=True, slots=True)
class Planned:
    """One request."""

    number: int
    """In the order of arrival within its step."""
    at_s: float
    """From the step's beginning."""
    traffic: int
    """Index into the scenario's traffics."""
    question: int
    """Which of the traffic's questions."""
    streamed: bool
    earlier_turns: int
    max_tokens: int


class _Choice:
    """Draws indices by weight; building the sums once makes a draw a bisection."""

    def __init__(self, weights: Sequence[float]) -> None:
        self._sums = list(itertools.accumulate(weights))

    def draw(self, dice: random.Random) -> int:
        return bisect(self._sums, dice.random() * self._sums[-1], hi=len(self._sums) - 1)


def requests(phases: Sequence[Phase], traffics: Sequence[Traffic], seed: str) -> list[Planned]:
    """Plan the requests of the phases, one after the other; equal seeds give equal plans."""
    dice = random.Random(seed)  # noqa: S311 - a load, not a secret
    times = _times(phases, dice)
    which = _Choice([traffic.share for traffic in traffics])
    questions = [_Choice(zipf(count_of(traffic), traffic.popularity)) for traffic in traffics]
    turns = [_Choice(traffic.earlier_turns) for traffic in traffics]
    lengths = [_Choice([length.share for length in traffic.max_tokens]) for traffic in traffics]
    planned = []
    for number, at_s in enumerate(times):
        kind = which.draw(dice)
        traffic = traffics[kind]
        planned.append(
            Planned(
                number,
                at_s,
                kind,
                questions[kind].draw(dice),
                dice.random() < traffic.streamed,
                turns[kind].draw(dice),
                traffic.max_tokens[lengths[kind].draw(dice)].tokens,
            )
        )
    return planned


def _times(phases: Sequence[Phase], dice: random.Random) -> list[float]:
    """When they come; all times are drawn before anything else, so that a change of the mix does not move them."""
    times: list[float] = []
    begins_s = 0.0
    for phase in phases:
        if phase.counted:
            many = round(phase.lasts_s * phase.per_s)
            times += sorted(begins_s + phase.lasts_s * dice.random() for _ in range(many))
        else:
            found = workload.arrivals([workload.Phase(phase.lasts_s, phase.per_s)], dice)
            times += [begins_s + arrival.at_s for arrival in found]
        begins_s += phase.lasts_s
    return times


def seed_of(scenario: Scenario, step: int) -> str:
    """Seed of a step's plan."""
    return f"{scenario.seed}/{step}"


def zipf(count: int, exponent: float) -> list[float]:
    """Weights by rank: 1 / rank ** exponent."""
    return [1 / rank**exponent for rank in range(1, count + 1)]


def count_of(traffic: Traffic) -> int:
    """Different questions of a traffic."""
    return traffic.pictures * traffic.questions_per_picture


def share_of(planned: Sequence[Planned], share: int, shares: int) -> list[Planned]:
    """Give one of `shares` generators its part: every so many-th, so that all send all the time."""
    return list(planned[share::shares])
