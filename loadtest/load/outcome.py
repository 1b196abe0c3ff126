"""What became of one request, and how it travels from a generator to the master and to the run's file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWER_KEPT = 300
"""Characters of a wrong answer that are kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times are seconds; those of an answer count from the planned arrival, not from when it could be sent."""

    step: int
    number: int
    traffic: str
    planned_s: float
    """From the step's beginning."""
    late_s: float
    """The generator's own delay: from the planned arrival to the first byte out."""
    ttft_s: float | None
    """To the first text of a streamed answer; None when there was none."""
    e2e_s: float
    """To the last byte, or to the failure."""
    gaps_s: tuple[float, ...] = ()
    """Between pieces of text: the inter-token latencies."""
    fault: str = ""
    """Empty for a whole answer of status 200."""
    right: bool = False
    cache: str = ""
    """The gateway's X-Cache."""
    sent_bytes: int = 0
    answer: str = ""
    """Kept of wrong ones only."""

    @property
    def answered(self) -> bool:
        """Whether there is an answer to check."""
        return not self.fault


_NAMES = tuple(field.name for field in fields(Outcome))


def pack(outcome: Outcome) -> list[Any]:
    """Make a row for the wire."""
    return list(asdict(outcome).values())


def unpack(row: list[Any]) -> Outcome:
    """Read a row."""
    values = dict(zip(_NAMES, row, strict=True))
    return Outcome(**{**values, "gaps_s": tuple(values["gaps_s"])})


def line(outcome: Outcome) -> bytes:
    """Make a line of `requests.ndjson`."""
    return orjson.dumps(outcome, option=orjson.OPT_APPEND_NEWLINE)


def read(path: Path) -> Iterator[Outcome]:
    """Read a run's file."""
    with path.open("rb") as lines:
        for text in lines:
            values = orjson.loads(text)
            yield Outcome(**{**values, "gaps_s": tuple(values["gaps_s"])})
