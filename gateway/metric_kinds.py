"""What prometheus_client lacks for a hot path: counts that cost an addition, and a label whose values are bounded.

A tally is a metric's child as the event loop sees it: plain numbers that only the loop changes, so no lock is needed.
`publish` brings what has been added since to prometheus_client, in this process's registry or in the files that several
workers share. That happens before each look at the registry and once a second (`sampling.py`), so a worker that is
killed takes its last second of counts with it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

T = TypeVar("T", bound="Tally")

OTHER = "other"
"""The label of everything beyond the bound."""

_tallies: WeakSet[Tally] = WeakSet()
_publishing = threading.Lock()
"""A scrape comes in a thread of its own."""


class Tally:
    """Something to be published for as long as it exists."""

    __slots__ = ("__weakref__",)

    def __init__(self) -> None:
        """From now on it is published."""
        with _publishing:
            _tallies.add(self)

    def publish(self) -> None:
        """Bring prometheus_client up to date."""
        raise NotImplementedError


class Count(Tally):
    """A counter."""

    __slots__ = ("_child", "_told", "value")

    def __init__(self, child: Counter) -> None:
        """`child` is the counter, or its child with its labels."""
        self.value = 0
        """How many there were: what is added is published."""
        self._told = 0
        self._child = child
        super().__init__()

    def inc(self, amount: int = 1) -> None:
        """Add. Where each request does it, `value += 1` spares the call."""
        self.value += amount

    def publish(self) -> None:
        """See Tally."""
        if more := self.value - self._told:
            self._told += more
            self._child.inc(more)


class Level(Tally):
    """A gauge that goes up and down by one."""

    __slots__ = ("_child", "value")

    def __init__(self, child: Gauge) -> None:
        """`child` is the gauge, or its child with its labels."""
        self.value = 0
        self._child = child
        super().__init__()

    def publish(self) -> None:
        """See Tally."""
        self._child.set(self.value)


class Distribution(Tally):
    """A histogram. What is observed is kept as it is and sorted into buckets when it is published."""

    __slots__ = ("_child", "_new", "observe")

    def __init__(self, child: Histogram) -> None:
        """`child` is the histogram, or its child with its labels."""
        self._child = child
        self._new: list[float] = []
        self.observe: Callable[[float], None] = self._new.append
        """Count an observation, in the metric's unit: without a call of Python, as there are ten in a request."""
        super().__init__()

    def publish(self) -> None:
        """See Tally."""
        if not (told := len(self._new)):
            return
        amounts = self._new[:told]
        del self._new[:told]  # The list stays the same one: the loop may be adding to it at this moment.
        add_to(self._child, amounts)


def add_to(histogram: Histogram, amounts: list[float]) -> None:
    """Count several observations at once, which nothing public of prometheus_client does."""
    child: Any = histogram
    amounts.sort()
    before = 0
    for bucket, bound in zip(child._buckets, child._upper_bounds, strict=True):  # noqa: SLF001
        if (upto := bisect_right(amounts, bound)) != before:
            bucket.inc(upto - before)
            before = upto
    child._sum.inc(sum(amounts))  # noqa: SLF001


class Children(dict[tuple[str, ...], T], Generic[T]):
    """A metric's tallies by their label values. A known one costs one dict lookup, and no lock as `labels()` does."""

    def __init__(self, metric: Counter | Histogram, kind: Callable[[Any], T]) -> None:
        """Empty; children, tallies of the `kind` that suits the metric, are made when first asked for."""
        super().__init__()
        self._metric = metric
        self._kind = kind

    def __missing__(self, values: tuple[str, ...]) -> T:
        child = self[values] = self._kind(self._metric.labels(*values))
        return child


def publish() -> None:
    """Bring everything that was tallied to prometheus_client; from any thread."""
    with _publishing:
        for tally in _tallies:
            tally.publish()


class _PublishedFirst:
    """Of all that the registry collects the first, as this module is imported before any metric is made."""

    def describe(self) -> Iterable[Metric]:
        """No metric of its own."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Nothing; what comes after it is up to date."""
        publish()
        return ()


REGISTRY.register(_PublishedFirst())


class BoundedLabel:
    """The first `limit` values that are offered keep their names for good; all others are `other`.

    Offered are the tenants in the key file's order, so that all workers and replicas name the same ones, and a new
    tenant never takes the name of an old one away.
    """

    def __init__(self, limit: int) -> None:
        """`limit` bounds the series, over the life of the process."""
        self.limit = limit
        self._named: dict[str, str] = {}

    def offer(self, values: Iterable[str]) -> None:
        """Give names as long as there is room."""
        for value in values:
            if len(self._named) >= self.limit:
                return
            self._named.setdefault(value, value)

    def __call__(self, value: str | None) -> str:
        """The value to label with; None is nobody's, such as a request without a valid key."""
        return self._named.get(value or "", OTHER)
