"""Whether a query of a panel or a rule has data, at a Prometheus that scrapes the running stack."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from helm.observability.queries import Asked, names_in, selectors_in, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.prometheus_api import Series

RATE_INTERVAL = "1m"
VARIABLES = {"$__rate_interval": RATE_INTERVAL, "$__interval": "30s", "$plan": "4.2"}
CHOICES = ("$namespace", "$model", "$engine")


def filled(expr: str) -> str:
    """The expression as Grafana sends it, with All for each choice."""
    for name in CHOICES:
        expr = expr.replace(name, ".*")
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


@dataclass
class Outcome:
    """What became of the queries."""

    alive: list[Asked] = field(default_factory=list)
    elsewhere: dict[str, list[Asked]] = field(default_factory=lambda: {"gpu": [], "exporter": []})
    """Not to be had without a GPU, or without a cluster; each name is one that its exporter documents."""
    dead: list[tuple[Asked, str]] = field(default_factory=list)
    """No data, and what had none."""


def judge(asked: list[Asked], known: dict[str, str], ask: Callable[[str], list[Series]]) -> Outcome:
    """Put every query to `ask`.

    A panel's or a recording rule's query must give a number. An alert gives nothing while all is well, and so does an
    annotation: each of their selectors must.
    """
    outcome = Outcome()
    for query in asked:
        sources = {source_of(name, known) for name in names_in(query.expr)}
        elsewhere = next((where for where in outcome.elsewhere if where in sources), None)
        if elsewhere is not None:
            outcome.elsewhere[elsewhere].append(query)
            continue
        wanted = sorted(selectors_in(query.expr)) if query.kind in {"alert", "annotation"} else [query.expr]
        empty = [expr for expr in wanted if not has_data(ask(filled(expr)))]
        if empty:
            outcome.dead.append((query, empty[0]))
        else:
            outcome.alive.append(query)
    return outcome


def has_data(found: list[Series]) -> bool:
    """Whether at least one series has a number."""
    return any(not math.isnan(series.last) for series in found)
