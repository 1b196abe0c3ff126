"""Finds the highest arrival rate that meets the objectives. Pure: `rate` says what to try, `tell` what came of it.

First it feels its way: short steps, each twice as fast, until one misses twice. None of them is believed; they warm
the service up and say where to look. Then whole steps: bisection in ratios down to `within`, and both ends are asked
themselves before the search ends.

One stall of the machine must not decide: a miss counts only when it is seen twice in a row, a step that something
else on the machine has disturbed is asked again instead (`patience` times in all), and the lowest rate that was missed
is asked once more at the end. If it is met now, the climb goes on. Nor must one lucky step: the highest rate that was
met is asked once more as well, and if it is missed now, the search goes on below it.

A step of T seconds does not see an overload that builds up a wait below the objective within T: its precision is about
(objective in seconds) / T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from loadtest.load.scenario import Phase, Ramp

FEELING_FACTOR = 2.0
FEELING_REQUESTS = 20
"""A short step lasts until so many are planned."""
DESCENT = 1.25
"""Down from a rate that was missed, where nothing below it has been met; its square for the next, and so on."""
MOST_RESTARTS = 3
"""How often an end that was asked once more may turn out otherwise: beyond, the machine's own speed changes, and the
search would follow it for ever."""
LEAST_PART = 20
"""Below this part of the first rate nobody asks further."""


@dataclass
class Search:
    """The state of one search; rates are requests a second."""

    ramp: Ramp
    met: float = 0.0
    """The highest rate of which a whole step has met the objectives."""
    missed: float | None = None
    """The lowest whose whole steps have missed them twice."""
    rate: float | None = field(init=False)
    """What to try next; None when the search is over."""
    feeling: bool = True
    """Whether the step at `rate` is a short one."""
    doubtful: bool = False
    """Whether a disturbed miss was believed, because there was no end to the disturbances."""
    _low: float = 0.0
    _high: float | None = None
    _misses: int = 0
    _repeats: int = 0
    _descent: float = DESCENT
    _looked: bool = False
    """Whether the lowest rate that was missed is being asked once more, or has been."""
    _confirmed: bool = False
    """The same of the highest that was met."""
    _all_met: list[float] = field(default_factory=list)
    _restarts: int = 0
    _gait: float = field(init=False)

    def __post_init__(self) -> None:
        self.rate = self.ramp.first_per_s
        self._gait = self.ramp.factor

    def tell(self, *, met: bool, disturbed: bool = False) -> None:
        """Say whether the objectives were met at `rate`, and whether the machine had other things to do meanwhile."""
        if self.rate is None:
            raise ValueError("the search is over")
        if self.feeling:
            # Twice, as they are short: a climb that begins far below takes long.
            self._misses = 0 if met else self._misses + 1
            if self._misses != 1:
                self._felt(self.rate, met=met)
            return
        if disturbed and not met:
            if self._repeats < self.ramp.patience:
                self._repeats += 1
                return
            self.doubtful = True
        self._misses = 0 if met else self._misses + 1
        if self._misses == 1 and (not self._looked or self._confirmed):
            return
        self._misses = 0
        self._learn(self.rate, met=met)
        self.rate = self._next()

    def _felt(self, rate: float, *, met: bool) -> None:
        if met:
            self._low = rate
            faster = rate * FEELING_FACTOR
            if faster <= self.ramp.most_per_s:
                self.rate = faster
                return
        else:
            self._high = rate
        self.feeling, self._misses = False, 0
        self.rate = self._next()

    def _learn(self, rate: float, *, met: bool) -> None:
        if met:
            self.met = self._low = rate
            self._all_met.append(rate)
            if self._high is not None and rate >= self._high:
                self._high, self.missed, self._looked = None, None, False
                self._restarts += 1
            return
        if rate <= self.met:  # It was luck.
            self._all_met = [lower for lower in self._all_met if lower < rate]
            self.met = max(self._all_met, default=0.0)
            self._looked = self._confirmed = False
            self._restarts += 1
        self.missed = self._high = rate
        if rate <= self._low:  # which had only been felt, or met by luck
            self._low = self.met

    def _next(self) -> float | None:
        if self._high is None:
            return self._faster()
        self._gait = self.ramp.factor
        if not self._low:
            lower, self._descent = self._high / self._descent, self._descent**2
            return lower if lower > self.ramp.first_per_s / LEAST_PART else None
        if self._high / self._low > 1 + self.ramp.within:
            return math.sqrt(self._high * self._low)
        if self.met < self._low:
            return self._low
        if self.missed != self._high:
            return self._high  # only felt so far: a miss must be seen twice, like any other
        return self._once_more()

    def _once_more(self) -> float | None:
        """Both ends, before they are believed."""
        if self._restarts >= MOST_RESTARTS:
            self.doubtful = True
            return None
        if not self._looked:
            self._looked = True
            return self._high
        confirmed, self._confirmed = self._confirmed, True
        return None if confirmed else self.met

    def _faster(self) -> float | None:
        if self.met < self._low:
            return self._low  # what was only felt is asked before anything above it
        faster = self._low * self._gait
        # Faster and faster: where the first miss was the machine's, the capacity may be far above.
        self._gait = min(self._gait**2, FEELING_FACTOR)
        return faster if faster <= self.ramp.most_per_s else None

    def phase(self) -> Phase:
        """Give the step that tries `rate`: exactly as many requests as it says, as their number must not decide."""
        if self.rate is None:
            raise ValueError("the search is over")
        lasts_s, least = (
            (self.ramp.feeling_s, FEELING_REQUESTS) if self.feeling else (self.ramp.step_s, self.ramp.least_requests)
        )
        return Phase(max(lasts_s, least / self.rate), self.rate, counted=True)
