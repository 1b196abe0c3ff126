"""What a dashboard is here: plain data, in both languages, from which Grafana's JSON is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Language = Literal["en", "zh"]
Kind = Literal["timeseries", "stat", "table"]


@dataclass(frozen=True)
class Text:
    """A title or a description in both languages."""

    en: str
    zh: str

    def of(self, language: Language) -> str:
        """The text in one of them."""
        return self.zh if language == "zh" else self.en


@dataclass(frozen=True)
class Query:
    """One PromQL expression and what its series are called."""

    expr: str
    legend: str = "{{namespace}}"


@dataclass(frozen=True)
class Panel:
    """A question an operator has, and the queries that answer it."""

    title: Text
    description: Text
    """What it shows and what to do about it."""
    unit: str
    """One of Grafana's unit ids: `s`, `reqps`, `percentunit`, `bytes` …"""
    queries: tuple[Query, ...]
    runbook: str = "README"
    """The page in docs/runbooks that goes on from here, without `.md`."""
    warn: float | None = None
    """From here on yellow."""
    bad: float | None = None
    """From here on red; below `warn`, low values are the bad ones."""
    kind: Kind = "timeseries"
    span: int = 8
    """Columns of 24."""
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels that belong together."""

    title: Text
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    uid: str
    title: Text
    description: Text
    rows: tuple[Row, ...]
    engine_values: str = 'label_values(vllm:num_requests_running{namespace=~"$namespace"}, instance)'
    """What the variable `engine` chooses from: scraped engines, or engines as the gateway calls them."""
    plan: bool = False
    """Whether it has the plan's figure as a variable."""
    tags: tuple[str, ...] = field(default=("qwen3-vl",))

    def panels(self) -> tuple[Panel, ...]:
        """All of them, in their order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def q(expr: str, legend: str = "{{namespace}}") -> Query:
    """Make a query; line breaks and indents of the source are squeezed."""
    return Query(" ".join(expr.split()), legend)


def counter_rate(metric: str, by: str, more: str = "") -> str:
    """The rate of one of the gateway's counters by labels; `more` matchers begin with a comma."""
    return f"sum by ({by}) (rate({metric}{{{NAMESPACE}{more}}}[$__rate_interval]))"


def quantiles(metric: str, selector: str) -> tuple[Query, ...]:
    """P50, P95 and P99 of a histogram."""
    rates = f"sum by (le) (rate({metric}_bucket{{{selector}}}[$__rate_interval]))"
    return tuple(q(f"histogram_quantile({level / 100:g}, {rates})", f"P{level}") for level in (50, 95, 99))


NAMESPACE = 'namespace=~"$namespace"'
GATEWAY_ENGINE = f'{NAMESPACE}, engine=~"$engine"'
ENGINE = f'{NAMESPACE}, model_name=~"$model", instance=~"$engine"'
MODEL = f'{NAMESPACE}, model_name=~"$model"'
