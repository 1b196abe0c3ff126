"""Arrivals: a Poisson process whose rate changes at given times. Seeded; equal seeds give equal arrivals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random


@dataclass(frozen=True)
class Phase:
    """A time of constant rate."""

    lasts_s: float
    per_s: float
    """Requests a second; 0 is a pause."""


@dataclass(frozen=True)
class Arrival:
    """A request that comes to the gateway."""

    at_s: float
    work: float
    """Its share of an engine's time: 1 on average. An answer of twice the usual length is 2."""


def arrivals(phases: Sequence[Phase], random: Random) -> Iterator[Arrival]:
    """Make the requests of the phases, one after the other.

    Gaps are exponential and begin anew with each phase, which a process without memory allows. The work is exponential
    too: lengths of answers vary about as much as they are long.
    """
    begins_s = 0.0
    for phase in phases:
        ends_s = begins_s + phase.lasts_s
        if phase.per_s:
            at_s = begins_s + random.expovariate(phase.per_s)
            while at_s < ends_s:
                yield Arrival(at_s, random.expovariate(1.0))
                at_s += random.expovariate(phase.per_s)
        begins_s = ends_s


def lasts_s(phases: Sequence[Phase]) -> float:
    """Add up the phases."""
    return sum(phase.lasts_s for phase in phases)
