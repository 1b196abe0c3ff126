"""From outcomes to figures to a verdict: pure.

Percentiles are nearest-rank values that were seen, over every request whose time counts; a request that failed counts
in `errors` and, as no answer came of it, not in the latencies.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadtest.load.outcome import Outcome
    from loadtest.load.scenario import Objective

PERCENTILES = (50, 95, 99)
LATENCIES = ("ttft_s", "itl_s", "e2e_s", "lateness_s")
EXAMPLES = 10
QUARTER = 4
SLOPE_POINTS = 24
MIB, HOUR_S = 1 << 20, 3600
MEMORY_SAMPLES = 8
"""Fewer say nothing about growth."""


def percentile(ordered: Sequence[float], rank: float) -> float:
    """Give the nearest-rank percentile of ascending values; NaN of none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)]


@dataclass(frozen=True)
class Sample:
    """The figures of some requests; latencies ascending, in seconds."""

    sent: int
    answered: int
    right: int
    cached: int
    lasts_s: float
    latencies: dict[str, list[float]]
    faults: Counter[str]
    wrong: list[Outcome]

    @property
    def per_s(self) -> float:
        """Requests that came in a second."""
        return self.sent / self.lasts_s if self.lasts_s else 0.0

    def value(self, objective: Objective, extra: dict[str, float]) -> float:
        """Give the figure that an objective is about; `extra` holds those that are not of single requests."""
        if objective.percentile:
            return percentile(self.latencies[objective.of], objective.percentile)
        if objective.of == "errors":
            return (self.sent - self.answered) / self.sent if self.sent else math.nan
        if objective.of == "wrong":
            return (self.answered - self.right) / self.answered if self.answered else math.nan
        return extra.get(objective.of, math.nan)


def sample(outcomes: Iterable[Outcome], *, settle_s: float = 0.0) -> Sample:
    """Add requests up. Those planned before `settle_s` count in all but the times."""
    sent = answered = right = cached = 0
    latencies: dict[str, list[float]] = {name: [] for name in LATENCIES}
    faults: Counter[str] = Counter()
    wrong = []
    ends: dict[int, float] = {}
    for outcome in outcomes:
        sent += 1
        ends[outcome.step] = max(ends.get(outcome.step, 0.0), outcome.planned_s)
        if outcome.fault:
            faults[outcome.fault] += 1
        else:
            answered += 1
            right += outcome.right
            cached += outcome.cache == "hit"
            if not outcome.right:
                wrong.append(outcome)
        if outcome.planned_s < settle_s:
            continue
        latencies["lateness_s"].append(outcome.late_s)
        if not outcome.fault:
            latencies["e2e_s"].append(outcome.e2e_s)
            latencies["itl_s"] += outcome.gaps_s
            if outcome.ttft_s is not None:
                latencies["ttft_s"].append(outcome.ttft_s)
    for values in latencies.values():
        values.sort()
    return Sample(sent, answered, right, cached, sum(ends.values()), latencies, faults, wrong)


@dataclass(frozen=True)
class Judged:
    """An objective and what was found."""

    title: str
    most: float
    value: float
    asked: bool = True
    """False when there was nothing to measure: no stream, no metrics. Then it is neither met nor missed."""

    @property
    def met(self) -> bool:
        """Whether it holds; one that nothing was measured for does."""
        return not self.asked or self.value <= self.most


def judge(objectives: Sequence[Objective], samples: dict[str, Sample], extra: dict[str, float]) -> list[Judged]:
    """Compare each objective with its sample: of its traffic, or of all (``""``).

    A latency objective whose requests were sent but never answered is missed: its value is infinite.
    """
    judged = []
    for objective in objectives:
        of = samples[objective.traffic]
        value = of.value(objective, extra)
        if math.isnan(value) and objective.percentile and of.sent and not of.answered:
            value = math.inf
        judged.append(Judged(objective.title, objective.most, value, asked=not math.isnan(value)))
    return judged


def growth(memory_bytes: Sequence[float]) -> float:
    """Say how much memory grew, as a share: the median of the run's last quarter to that of its second.

    The first quarter warms pools and caches up. NaN for too few samples.
    """
    if len(memory_bytes) < MEMORY_SAMPLES:
        return math.nan
    quarter = len(memory_bytes) // QUARTER
    early, late = sorted(memory_bytes[quarter : 2 * quarter]), sorted(memory_bytes[-quarter:])
    return late[quarter // 2] / early[quarter // 2] - 1


def slope_mib_h(timed: Sequence[tuple[float, float]]) -> float:
    """Say how fast memory grows: MiB an hour, after the first quarter; NaN for too few samples.

    The median of the slopes between medians of stretches (Theil and Sen), so that no single peak makes one.
    """
    settled = timed[len(timed) // QUARTER :]
    if len(settled) < MEMORY_SAMPLES:
        return math.nan
    length = max(1, len(settled) // SLOPE_POINTS)
    points = []
    for start in range(0, len(settled) - length + 1, length):
        stretch = settled[start : start + length]
        points.append((stretch[length // 2][0], sorted(value for _, value in stretch)[length // 2]))
    slopes = [(y - v) / (x - u) for at, (x, y) in enumerate(points) for u, v in points[:at] if x > u]
    return median(slopes) / MIB * HOUR_S if slopes else math.nan


def table(of: Sample) -> dict[str, Any]:
    """Make the figures of `summary.json`: what two runs are compared by."""
    return {
        "sent": of.sent,
        "answered": of.answered,
        "right": of.right,
        "cached": of.cached,
        "per_s": round(of.per_s, 4),
        "faults": dict(of.faults.most_common()),
        **{
            name: {
                f"p{rank}": None if math.isnan(found := percentile(values, rank)) else round(found, 6)
                for rank in PERCENTILES
            }
            for name, values in of.latencies.items()
        },
    }
