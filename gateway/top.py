"""The figures of `python -m gateway top`: two looks at `/metrics`, and what happened between them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

Labels = dict[str, str]


@dataclass(frozen=True)
class Look:
    """All samples at one moment."""

    at_s: float
    samples: dict[str, list[tuple[Labels, float]]]

    @classmethod
    def of(cls, text: str, at_s: float) -> Look:
        """Read Prometheus' text format; raises ValueError when it is none."""
        samples: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return cls(at_s, samples)

    def by(self, name: str, label: str, **wanted: str) -> dict[str, float]:
        """Sums of a metric by a label, of the series that have the wanted labels."""
        sums: dict[str, float] = {}
        for labels, value in self.samples.get(name, ()):
            if wanted.items() <= labels.items():
                sums[labels.get(label, "")] = sums.get(labels.get(label, ""), 0.0) + value
        return sums

    def total(self, name: str, **wanted: str) -> float:
        """The sum of a metric."""
        return sum(self.by(name, "", **wanted).values())


@dataclass(frozen=True)
class Engine:
    """One engine's row."""

    url: str
    up: bool
    in_flight: float
    failures: float
    """Since the gateway's start."""


@dataclass(frozen=True)
class View:
    """What one screen shows; rates are a second, since the look before."""

    requests: float
    errors: dict[str, float]
    """By whose fault."""
    hits: float | None
    """Share of kept answers, None without requests."""
    first_token_s: tuple[float | None, ...]
    """P50, P95, P99; None where nothing was."""
    answer_s: tuple[float | None, ...]
    step_s: dict[str, float]
    """Mean of each step, slowest first."""
    waiting: dict[str, float]
    in_flight: float
    tokens: dict[str, float]
    tenants: dict[str, float]
    engines: tuple[Engine, ...]


QUANTILES = (0.5, 0.95, 0.99)


def view(before: Look, now: Look) -> View:
    """What happened between two looks, and how it stands."""
    requests = rate(before, now, "gateway_requests_total", "cache")
    total = sum(requests.values())
    sums = rate(before, now, "gateway_step_duration_seconds_sum", "step")
    counts = rate(before, now, "gateway_step_duration_seconds_count", "step")
    failures = now.by("gateway_engine_failures_total", "engine")
    in_flight = now.by("gateway_engine_in_flight_requests", "engine")
    return View(
        requests=total,
        errors={
            name: value
            for name, value in rate(before, now, "gateway_request_errors_total", "error_class").items()
            if value
        },
        hits=requests.get("hit", 0.0) / total if total else None,
        first_token_s=quantiles(before, now, "gen_ai_server_time_to_first_token_seconds"),
        answer_s=quantiles(before, now, "gen_ai_server_request_duration_seconds"),
        step_s=descending({step: sums[step] / count for step, count in counts.items() if count}),
        waiting=now.by("gateway_queue_depth", "priority"),
        in_flight=now.total("gateway_in_flight_requests"),
        tokens=rate(before, now, "gateway_tokens_total", "gen_ai_token_type"),
        tenants=descending(rate(before, now, "gateway_tenant_requests_total", "tenant")),
        engines=tuple(
            Engine(url, bool(up), in_flight.get(url, 0.0), failures.get(url, 0.0))
            for url, up in sorted(now.by("gateway_engine_up", "engine").items())
        ),
    )


def descending(values: dict[str, float]) -> dict[str, float]:
    """The largest first."""
    return dict(sorted(values.items(), key=lambda item: -item[1]))


def rate(before: Look, now: Look, name: str, label: str) -> dict[str, float]:
    """How much a counter grew a second, by a label; a counter that fell was a gateway that started anew."""
    spent_s = max(now.at_s - before.at_s, 1e-9)
    was = before.by(name, label)
    return {key: max(0.0, value - was.get(key, 0.0)) / spent_s for key, value in now.by(name, label).items()}


def quantiles(before: Look, now: Look, name: str) -> tuple[float | None, ...]:
    """P50, P95 and P99 in seconds of what a histogram took in between two looks."""
    grown = rate(before, now, f"{name}_bucket", "le")
    buckets = sorted((float(bound), value) for bound, value in grown.items())
    return tuple(quantile(buckets, share) for share in QUANTILES)


def quantile(buckets: Iterable[tuple[float, float]], share: float) -> float | None:
    """As Prometheus' histogram_quantile: linear within a bucket; the last finite bound for what is beyond it."""
    found = list(buckets)
    if not found or not found[-1][1]:
        return None
    rank, lower, below = share * found[-1][1], 0.0, 0.0
    for bound, count in found:
        if count >= rank:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below) if count > below else bound
        lower, below = bound, count
    return lower
