"""The loads and settings that docs/autoscaling.md compares. Speeds are serving.capacity's: computed, not measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING

from loadtest.autoscale.engine import EngineModel
from loadtest.autoscale.policy import Policy, Signal, Trigger
from loadtest.autoscale.simulate import Outcome, Setup, simulate
from loadtest.autoscale.workload import Phase
from serving.capacity import load, overview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MINUTE_S = 60.0
SEEDS = (1, 2)
"""Each row is the mean of these."""
PATIENCE_S = 5.0
"""A person still waits for so long until the answer begins."""

GPU = "l4"
COLD_START_S = 180.0
TARGET_SHARE = 0.6
"""The share of its saturated rate at which an engine calls for another."""
WAITING_TARGET = 4.0

SMALL_PICTURES_S, LARGE_PICTURES_S = 0.02, 0.4
"""Preparing a picture of 512x512, and one of some 12 megapixels that no gateway has shrunk. Assumed."""
LONG_PROMPTS_AT_ONCE = 8
"""Requests that the KV cache holds when each takes four times the usual."""

SHOP = (
    Phase(10 * MINUTE_S, 2),
    Phase(12 * MINUTE_S, 9),
    Phase(15 * MINUTE_S, 3),
    Phase(3 * MINUTE_S, 12),
    Phase(15 * MINUTE_S, 2),
    Phase(5 * MINUTE_S, 0.3),
)
"""An hour with a campaign of 12 minutes and a peak of 3."""
WAVES = (Phase(5 * MINUTE_S, 2), *(Phase(4 * MINUTE_S, 9), Phase(6 * MINUTE_S, 1.5)) * 5, Phase(5 * MINUTE_S, 1))
"""A burst of 4 minutes every 10."""
CALLS = (Phase(20 * MINUTE_S, 0), *(Phase(6 * MINUTE_S, 0.6), Phase(54 * MINUTE_S, 0)) * 4)
"""Six minutes of a few requests, once an hour; nothing else."""
LONG_PROMPTS = (Phase(10 * MINUTE_S, 0.7), Phase(30 * MINUTE_S, 1.9), Phase(20 * MINUTE_S, 0.7))


@cache
def rates(profile: str) -> tuple[float, ...]:
    """Requests a second of a profile's engine while 0, 1, 2 … run, up to the most that it can."""
    question = dict(overview.questions())[profile]
    most = load.concurrent_requests(question)
    return (0.0, *(load.saturated_requests_per_s(question, running) for running in range(1, most + 1)))


def target_in_flight(profile: str, share: float = TARGET_SHARE) -> int:
    """Count the requests in flight at which an engine gives this share of its saturated rate."""
    speeds = rates(profile)
    return next(running for running, speed in enumerate(speeds) if speed >= share * speeds[-1])


def engine(preparing_s: float = SMALL_PICTURES_S, most: int | None = None) -> EngineModel:
    """Model an engine on the GPU of this page."""
    speeds = rates(GPU)
    return EngineModel(speeds.__getitem__, most or len(speeds) - 1, preparing_s)


def in_flight(target: float | None = None, **settings: float) -> Policy:
    """Make the chart's policy, with other settings where they are given."""
    triggers = (
        Trigger(Signal.IN_FLIGHT, target or target_in_flight(GPU)),
        Trigger(Signal.WAITING, WAITING_TARGET),
    )
    return replace(Policy(triggers), **settings)  # type: ignore[arg-type]


def scaled_on(signal: Signal, target: float) -> Policy:
    """Make a policy with one trigger."""
    return Policy((Trigger(signal, target),))


USUAL = Setup(engine(), cold_start_s=COLD_START_S)


@dataclass(frozen=True)
class Case:
    """One row, or a part of it."""

    phases: tuple[Phase, ...]
    setup: Setup
    policy: Policy | None
    replicas: int = 1


@dataclass(frozen=True)
class Result:
    """Means over the seeds."""

    in_time: float
    refused: float
    p95_s: float
    engine_hours: float
    most: float


Run = tuple[Case, int]
"""With its seed."""
Figures = tuple[float, ...]


def results(
    cases: Sequence[Case], mapped: Callable[[Callable[[Run], Figures], list[Run]], Iterable[Figures]]
) -> list[Result]:
    """Run all cases with all seeds. `mapped` is `map`, or the one of a pool of processes."""
    figures = list(mapped(figures_of, [(case, seed) for case in cases for seed in SEEDS]))
    return [
        Result(*(fmean(column) for column in zip(*figures[at : at + len(SEEDS)], strict=True)))
        for at in range(0, len(figures), len(SEEDS))
    ]


def figures_of(run: Run) -> Figures:
    """Run one case with one seed; the figures are in the order of Result."""
    outcome = run_case(*run)
    return (
        outcome.within(PATIENCE_S),
        outcome.refused_share,
        outcome.wait_s(0.95),
        outcome.engine_s / 3600,
        max(sample.replicas for sample in outcome.samples),
    )


def run_case(case: Case, seed: int) -> Outcome:
    """Run one case once."""
    return simulate(case.phases, case.setup, case.policy, seed=seed, replicas=case.replicas)
