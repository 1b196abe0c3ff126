"""What prometheus_client lacks for a hot path: children found by a dict, and a label whose values are bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics import MetricWrapperBase

M = TypeVar("M", bound="MetricWrapperBase")

OTHER = "other"
"""The label of everything beyond the bound."""


class Children(dict[tuple[str, ...], M], Generic[M]):
    """A metric's children by their label values. A known one costs one dict lookup, and no lock as `labels()` does."""

    def __init__(self, metric: M) -> None:
        """Empty; children are made when first asked for."""
        super().__init__()
        self._metric = metric

    def __missing__(self, values: tuple[str, ...]) -> M:
        child = self[values] = self._metric.labels(*values)
        return child


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
