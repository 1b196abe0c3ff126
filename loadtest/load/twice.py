"""Are two ramps of one service the same? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Two capacities, in requests a second, and how far apart they may be, as a share of the smaller one."""

    first: float
    second: float
    most: float
    doubtful: bool
    """Whether one of them was found on a machine that was never quiet."""

    @property
    def apart(self) -> float:
        """How far apart they are; infinite where one ramp found nothing."""
        least = min(self.first, self.second)
        return max(self.first, self.second) / least - 1 if least else float("inf")

    @property
    def met(self) -> bool:
        """Whether they are the same."""
        return self.apart <= self.most

    def __str__(self) -> str:
        said = "within" if self.met else "NOT within"
        doubt = "; the machine was disturbed, see the reports" if self.doubtful else ""
        return (
            f"capacity {self.first:.3g} and {self.second:.3g} requests/s: {self.apart:.1%} apart, "
            f"{said} {self.most:.0%}{doubt}"
        )


def judge(first: dict[str, Any], second: dict[str, Any], *, apart: float) -> Verdict:
    """Compare two summaries of ramps."""
    doubtful = any(each["capacity_doubtful"] for each in (first, second))
    return Verdict(first["capacity_per_s"], second["capacity_per_s"], apart, doubtful)
