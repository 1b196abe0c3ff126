"""The proof's own judgement: what counts as alive."""

from __future__ import annotations

from gateway.prometheus_api import Series
from helm.observability.live import filled, judge
from helm.observability.queries import Asked, known_names

KNOWN = known_names()


def answering(**values):
    """A Prometheus that knows some expressions."""

    def ask(expr):
        return [Series({}, ((0.0, value),)) for name, value in values.items() if expr.startswith(name)]

    return ask


def asked(expr, kind="panel"):
    return [Asked(expr, "Board / Panel", kind)]


def test_a_panel_with_a_number_is_alive():
    outcome = judge(asked("gateway_workers"), KNOWN, answering(gateway_workers=1.0))
    assert (len(outcome.alive), outcome.dead) == (1, [])


def test_a_panel_without_data_or_with_no_number_is_dead():
    for answers in ({}, {"gateway_workers": float("nan")}):
        [(query, what)] = judge(asked("gateway_workers"), KNOWN, answering(**answers)).dead
        assert (query.where, what) == ("Board / Panel", "gateway_workers")


def test_a_quiet_alert_is_alive_when_all_its_metrics_are():
    expr = "gateway_workers == 0 and gateway_engine_up == 0"
    outcome = judge(asked(expr, "alert"), KNOWN, answering(gateway_workers=1.0, gateway_engine_up=1.0))
    assert outcome.alive
    [(_, what)] = judge(asked(expr, "alert"), KNOWN, answering(gateway_workers=1.0)).dead
    assert what == "gateway_engine_up"


def test_a_gpus_query_is_listed_and_not_asked():
    outcome = judge(asked("max(DCGM_FI_DEV_GPU_UTIL)"), KNOWN, answering())
    assert (len(outcome.elsewhere["gpu"]), outcome.dead) == (1, [])


def test_choices_are_filled_as_grafana_does():
    expr = 'rate(a{namespace=~"$namespace", engine=~"$engine"}[$__rate_interval]) / $plan'
    assert filled(expr) == 'rate(a{namespace=~".*", engine=~".*"}[1m]) / 4.2'
