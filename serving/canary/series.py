"""Error rate and P99 of a release against the one before, from Prometheus. Asking, and a pure verdict."""

from __future__ import annotations

import json
import math
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = "sum(increase(gateway_requests_total{{{selector}}}[{window}]))"
ERRORS = 'sum(increase(gateway_requests_total{{{selector}{comma}status=~"5.."}}[{window}])) or vector(0)'
P99 = (
    "histogram_quantile(0.99, sum by (le) (rate(gateway_request_duration_seconds_bucket"
    '{{{selector}{comma}operation="/v1/chat/completions"}}[{window}])))'
)
TIMEOUT_S = 15.0


class NoSeries(Exception):
    """Prometheus could not be asked; the message says why."""


@dataclass(frozen=True)
class Sample:
    """One release over one window."""

    requests: float
    error_rate: float
    """Share of 5xx, from 0 to 1."""
    p99_s: float | None
    """None where there were no requests."""


@dataclass(frozen=True)
class Limits:
    """How much worse a release may be. Small numbers differ by chance, hence the floors."""

    error_rate: float = 0.02
    """More of 5xx than the release before; of a first release: at all."""
    p99_factor: float = 1.5
    p99_slack_s: float = 0.5
    """A P99 that is worse by less than this is no reason, whatever the factor."""
    least_requests: int = 20
    """Fewer in either window, and the two are not compared."""


def read(url: str, selector: str, window_s: float, at: float) -> Sample:
    """Take one sample that ends at `at` (Unix seconds). Raises NoSeries."""
    words = {"selector": selector, "comma": "," if selector else "", "window": f"{max(1, round(window_s))}s"}
    requests, errors, p99 = (_value(url, text.format(**words), at) for text in (REQUESTS, ERRORS, P99))
    total = requests or 0.0
    return Sample(total, (errors or 0.0) / total if total else 0.0, p99)


def _value(url: str, query: str, at: float) -> float | None:
    """Ask for one number; None where Prometheus has none (no series, or 0/0)."""
    asked = urllib.parse.urlencode({"query": query, "time": f"{at:.3f}"})
    try:
        status, answer = exchange.request("GET", f"{url.rstrip('/')}/api/v1/query?{asked}", {}, None, TIMEOUT_S)
    except exchange.NoExchange as exc:
        raise NoSeries(f"Prometheus does not answer: {exc}") from exc
    try:
        found = json.loads(answer)
        if found["status"] != "success":
            raise NoSeries(f"Prometheus refuses the query: {found.get('error', status)}")
        results = found["data"]["result"]
        number = float(results[0]["value"][1]) if results else math.nan
    except (ValueError, LookupError, TypeError):
        raise NoSeries(f"status {status} of {url} is no answer of Prometheus") from None
    return number if math.isfinite(number) else None


def worse(now: Sample, before: Sample | None, limits: Limits = Limits()) -> Iterator[str]:  # frozen
    """Say in what the new release is worse than the one before, or than a first release may be."""
    if now.requests < limits.least_requests:
        return
    known = before is not None and before.requests >= limits.least_requests
    base = before.error_rate if before is not None and known else 0.0
    if now.error_rate > base + limits.error_rate:
        yield f"{now.error_rate:.1%} of {now.requests:.0f} requests failed, {base:.1%} before"
    if before is None or not known or now.p99_s is None or before.p99_s is None:
        return
    if now.p99_s > before.p99_s * limits.p99_factor and now.p99_s > before.p99_s + limits.p99_slack_s:
        yield f"P99 is {now.p99_s:.2f} s, {before.p99_s:.2f} s before"
