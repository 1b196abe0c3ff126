"""How long the steps of a request took: marks while it runs, and one booking of all of them."""

from __future__ import annotations

import time
from itertools import chain, pairwise, repeat
from operator import mul, sub, truediv
from typing import TYPE_CHECKING, Any

from gateway.metric_kinds import Tally, add_to
from gateway.telemetry import STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

IN_HUNDREDTHS = repeat(100_000.0)
"""Of a millisecond: rounding to whole numbers, and writing those, costs a tenth of what decimals do."""
HUNDRED = repeat(100)


class StepTimer:
    """Durations of the steps of one request, in the order they ran, and what the steps found out."""

    __slots__ = ("_clock", "_hundredths", "_marks", "_sequence", "facts", "started")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds; it is read at the start and where a step begins or ends."""
        self._clock = clock
        self.started = clock()
        self.facts: dict[str, Any] = {}
        """For the log and the audit: `images` (content digests in hex), `engine`, `retries` (if there were any)."""
        self._marks: list[Any] = []
        """The name of a step, when it began, the next one's name, …; no name where one ended and none began."""
        self._sequence: _Sequence | None = None
        self._hundredths: tuple[int, ...] = ()
        """Of a millisecond that each step took, once booked."""

    def enter(self, name: str) -> None:
        """Step `name` begins now, and the one before it ends."""
        self._marks += name, self._clock()

    def leave(self) -> None:
        """The last step ends, and none begins: what comes now is the client's time."""
        marks = self._marks
        if marks and marks[-2]:
            marks += "", self._clock()

    def part(self, name: str, seconds: float) -> None:
        """The last `seconds` of the step that runs were another one, `name`."""
        self._marks += name, max(self._marks[-1], self._clock() - seconds)

    def elapsed_s(self) -> float:
        """Seconds since the request came in."""
        return self._clock() - self.started

    @property
    def steps(self) -> list[tuple[str, float, float]]:
        """Name, when it began (seconds since the start), and how long it took (seconds)."""
        pairs = zip(self._marks[::2], pairwise(self._marks[1::2]), strict=False)
        return [(name, began - self.started, ended - began) for name, (began, ended) in pairs if name]

    def server_timing(self) -> bytes:
        """The `Server-Timing` header (W3C): the steps in milliseconds. They are over with this."""
        sequence = self._sequence or self._booked()
        return (sequence.template % tuple(chain.from_iterable(map(divmod, self._hundredths, HUNDRED)))).encode()

    def ms(self) -> dict[str, float]:
        """The steps in milliseconds with two decimals, for people. They are over with this."""
        sequence = self._sequence or self._booked()
        found = dict(zip(sequence.names, map(truediv, self._hundredths, HUNDRED), strict=True))
        found.pop("", None)
        return found

    def _booked(self) -> _Sequence:
        self.leave()
        times = self._marks[1::2]
        spent_s = tuple(map(sub, times[1:], times))
        self._hundredths = tuple(map(round, map(mul, spent_s, IN_HUNDREDTHS)))
        sequence = self._sequence = _sequences[tuple(self._marks[::2])]
        sequence.add(spent_s)
        return sequence


class _Sequence(Tally):
    """Steps that ran in this order in some requests; their durations go to the histogram when it is published."""

    __slots__ = ("_children", "_new", "add", "names", "template")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names[:-1]
        """Without the last, where all were over."""
        # A gap takes its duration and writes nothing.
        parts = [
            f"{', ' if at else ''}{name};dur=%d.%02d" if name else "%.0s%.0s" for at, name in enumerate(self.names)
        ]
        self.template = "".join(parts)
        self._children = [STEPS.labels(name) if name else None for name in self.names]
        self._new: list[tuple[float, ...]] = []
        self.add: Callable[[tuple[float, ...]], None] = self._new.append
        super().__init__()

    def publish(self) -> None:
        """See Tally."""
        if not (told := len(self._new)):
            return
        columns = zip(*self._new[:told], strict=True)
        del self._new[:told]  # The list stays the same one: the loop may be adding to it at this moment.
        for child, column in zip(self._children, columns, strict=True):
            if child is not None:
                add_to(child, list(column))


class _Sequences(dict[tuple[str, ...], _Sequence]):
    """By the names. There are a few dozen: the steps are this code's own, and their order is the pipeline's."""

    def __missing__(self, names: tuple[str, ...]) -> _Sequence:
        found = self[names] = _Sequence(names)
        return found


_sequences = _Sequences()
