"""What a report of a time range shows, and its page: questions to Prometheus, and HTML around the plots' picture."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.prometheus_api import Series

Unit = Literal["", "/s", "s", "%"]


@dataclass(frozen=True)
class Plot:
    """One plot: PromQL, with the width of rates as `{w}`, and what the series are called."""

    title: str
    unit: Unit
    queries: tuple[tuple[str, str], ...]
    """Expression, and name; a name in braces is that of a label."""
    bad_above: float | None = None
    """A line is drawn here."""


def _quantiles(metric: str, matchers: str = "") -> tuple[tuple[str, str], ...]:
    rates = f"sum by (le) (rate({metric}_bucket{matchers}[{{w}}]))"
    return tuple(
        (f"histogram_quantile({share}, {rates})", name) for share, name in ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))
    )


_MADE = '{{cache!="hit"}}'
"""Answers by an engine; braces are doubled for `format`."""
_ALL = "sum(increase(gateway_requests_total[{w}]))"
_HITS = '(sum(increase(gateway_requests_total{{cache="hit"}}[{w}])) or vector(0))'
_OURS = 'sum(increase(gateway_request_errors_total{{error_class=~"overload|engine|gateway"}}[{w}]))'
_STEP = "sum by (step) (rate(gateway_step_duration_seconds_{}[{{w}}]))"

PLOTS = (
    Plot("Requests by status", "/s", (("sum by (status) (rate(gateway_requests_total[{w}]))", "{status}"),)),
    Plot(
        "Errors by cause",
        "/s",
        (("sum by (error_type) (rate(gateway_request_errors_total[{w}])) > 0", "{error_type}"),),
    ),
    Plot(
        "First token",
        "s",
        _quantiles("gen_ai_server_time_to_first_token_seconds", _MADE),
        bad_above=2.5,
    ),
    Plot("Whole answer", "s", _quantiles("gen_ai_server_request_duration_seconds")),
    Plot(
        "Mean of each step",
        "s",
        ((f"{_STEP.format('sum')} / {_STEP.format('count')}", "{step}"),),
    ),
    Plot(
        "Kept answers",
        "%",
        ((f"100 * {_HITS} / {_ALL}", "hits"),),
    ),
    Plot(
        "Waiting and in flight",
        "",
        (
            ("sum(gateway_queue_depth)", "waiting"),
            ("sum by (engine) (gateway_engine_in_flight_requests)", "{engine}"),
        ),
    ),
    Plot(
        "Failures of engines by cause",
        "/s",
        (("sum by (cause) (rate(gateway_engine_failures_total[{w}]))", "{cause}"),),
    ),
    Plot(
        "Event loop lag, P99",
        "s",
        (
            (
                "histogram_quantile(0.99, sum by (le) (rate(gateway_event_loop_lag_seconds_bucket[{w}])))",
                "lag",
            ),
        ),
        bad_above=0.25,
    ),
    Plot("Engines up", "", (("min by (engine) (gateway_engine_up)", "{engine}"),)),
    Plot(
        "KV cache in use",
        "%",
        (("100 * max by (instance) (vllm:kv_cache_usage_perc)", "{instance}"),),
        bad_above=95,
    ),
    Plot("Tokens by tenant", "/s", (("sum by (tenant) (rate(gateway_tokens_total[{w}]))", "{tenant}"),)),
)

Curve = tuple[str, "Series"]
SUMMARY: tuple[tuple[str, str, str], ...] = (
    # What, PromQL over the whole range, how it is written.
    ("Requests", _ALL, "{:.0f}"),
    ("Failed by a fault of ours", f"{_OURS} / {_ALL}", "{:.2%}"),
    ("First token, P95", _quantiles("gen_ai_server_time_to_first_token_seconds", _MADE)[1][0], "{:.2f} s"),
    ("Whole answer, P99", _quantiles("gen_ai_server_request_duration_seconds")[2][0], "{:.2f} s"),
    ("Kept answers", f"{_HITS} / {_ALL}", "{:.0%}"),
    (
        "Answer tokens",
        'sum(increase(gateway_tokens_total{{gen_ai_token_type="output"}}[{w}]))',
        "{:.0f}",
    ),
    (
        "Versions",
        "count(count by (version, revision, model_revision) (max_over_time(gateway_build_info[{w}])))",
        "{:.0f}",
    ),
)


def curves(plot: Plot, ask: Callable[[str], list[Series]], rate_s: float) -> list[Curve]:
    """The plot's series with their names."""
    found = []
    for expr, name in plot.queries:
        for series in ask(expr.format(w=f"{rate_s:.0f}s")):
            label = series.labels.get(name.strip("{}"), name) if name.startswith("{") else name
            found.append((label, series))
    return found


def summary(ask: Callable[[str], list[Series]], since_s: float) -> list[tuple[str, str]]:
    """The figures of the whole range; `-` where there is no data."""
    rows = []
    for title, expr, form in SUMMARY:
        found = ask(expr.format(w=f"{since_s:.0f}s"))
        known = bool(found) and found[0].last == found[0].last
        rows.append((title, form.format(found[0].last) if known else "-"))
    return rows


def page(title: str, rows: Sequence[tuple[str, str]], picture: bytes) -> str:
    """One file that needs no other; `picture` is a PNG."""
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font:16px system-ui;margin:2rem auto;max-width:1200px;padding:0 1rem}img{width:100%}"
        "th{text-align:left;padding-right:2rem;font-weight:normal}td{text-align:right}</style>"
        f"<h1>{html.escape(title)}</h1><table>{cells}</table>"
        f'<img alt="plots" src="data:image/png;base64,{base64.b64encode(picture).decode()}"></html>\n'
    )
