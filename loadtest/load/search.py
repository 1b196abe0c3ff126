"""Finds the highest arrival rate that meets the objectives: up by a factor until one is missed, then bisection.

Pure: `rate` says what to try, `tell` what came of it. A miss counts only when it is seen twice in a row, as one stall
of the machine would otherwise end the climb far below the capacity. At the end the lowest rate that was missed is asked
once more: if it is met now, the miss was the machine's, and the climb goes on.

A step of T seconds does not see an overload that builds up a wait below the objective within T: its precision is about
(objective in seconds) / T.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from loadtest.load.scenario import Phase, Ramp


@dataclass
class Search:
    """The state of one search; rates are requests a second."""

    ramp: Ramp
    met: float = 0.0
    """The highest rate that has met the objectives."""
    missed: float | None = None
    """The lowest that has not, twice."""
    rate: float | None = field(init=False)
    """What to try next; None when the search is over."""
    _misses: int = 0
    _last_look: bool = False

    def __post_init__(self) -> None:
        self.rate = self.ramp.first_per_s

    def tell(self, *, met: bool) -> None:
        """Say whether the objectives were met at `rate`."""
        if self.rate is None:
            raise ValueError("the search is over")
        if self._last_look and not met:
            self.rate = None
            return
        self._misses = 0 if met else self._misses + 1
        if self._misses == 1:
            return
        self._misses = 0
        if met:
            self.met = self.rate
            if self._last_look:
                self._last_look, self.missed = False, None
        else:
            self.missed = self.rate
        self.rate = self._next()

    def _next(self) -> float | None:
        if self.missed is None:
            following = self.met * self.ramp.factor
            return following if following <= self.ramp.most_per_s else None
        # From 0 there is nothing to be within a share of: below a twentieth of the first rate nobody asks further.
        enough = max(self.ramp.within * self.missed, self.ramp.first_per_s / 20)
        if self.missed - self.met > enough:
            return (self.met + self.missed) / 2
        self._last_look = True
        return self.missed

    def phase(self) -> Phase:
        """Give the step that tries `rate`."""
        if self.rate is None:
            raise ValueError("the search is over")
        return Phase(max(self.ramp.step_s, self.ramp.least_requests / self.rate), self.rate)
