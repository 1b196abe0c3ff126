"""No panel and no rule asks for a metric that nobody exports."""

from __future__ import annotations

import pytest
from delivery.record import Entry, Result

from gateway.metrics_reference import families
from helm.observability import queries
from helm.observability.queries import (
    Asked,
    known_names,
    names_in,
    panel_queries,
    rule_queries,
    selectors_in,
    unknown_names,
)
from serving.host.report import metrics

ALL = [*panel_queries(), *rule_queries()]


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ('sum by (le) (rate(a_bucket{x="b_total", y=~"c|d"}[5m]))', {"a_bucket"}),
        ("a_total / on (x) group_left (y) b_total offset 1h", {"a_total", "b_total"}),
        ("a == 0 and on(x) max_over_time(vllm:generation_tokens_total[30m])", {"a", "vllm:generation_tokens_total"}),
        ("1 - rec:one:rate5m > 14.4 * 0.001 unless Nan", {"rec:one:rate5m"}),
        ("max_over_time((sum(rate(a[5m])))[1d:5m]) or vector(0) / ($plan * b)", {"a", "b"}),
        ('label_replace(a, "x", "$1", "y", "(z)") / 1e9', {"a"}),
        ("time() - process_start_time_seconds < 7 * 86400", {"process_start_time_seconds"}),
        ("count(a) by (instance) unless count by (version) (b)", {"a", "b"}),
    ],
)
def test_the_names_of_an_expression_are_found(expr, names):
    assert names_in(expr) == names


def test_selectors_keep_their_matchers_and_lose_their_ranges():
    expr = 'sum by (le) (rate(a_bucket{le="2.5"}[5m])) / sum(a_bucket) > 0'
    assert selectors_in(expr) == {'a_bucket{le="2.5"}', "a_bucket"}


def test_every_name_has_an_exporter():
    assert len(ALL) > 100
    assert unknown_names(ALL, known_names()) == []


@pytest.mark.parametrize(
    "name", ["gateway_no_such_total", "gateway_queue_wait_seconds", "DCGM_FI_DEV_NO_SUCH", "slo:none"]
)
def test_a_name_that_nobody_exports_is_found(name):
    [fault] = unknown_names([Asked(f"rate({name}[5m])", "Board / Panel", "panel")], known_names())
    assert fault == f"Board / Panel: nobody exports {name}"


def test_every_metric_of_the_gateway_is_on_a_panel_or_in_a_rule():
    asked = {name for query in ALL for name in names_in(query.expr)}
    assert [family.name for family in families() if not asked & set(family.series())] == []


def test_no_name_is_listed_that_nobody_asks_for():
    asked = {name for query in ALL for name in names_in(query.expr)}
    assert queries.gpu_names() <= asked
    assert set(queries.EXPORTERS) <= asked


def test_what_is_asked_of_hosts_is_what_a_deployment_writes():
    entry = Entry("deploy", "production", "host", "a", "c", "1.5.0", "", "", result=Result.ROLLED_BACK)
    text = metrics(entry, 1.0)
    ours = [name for name in queries.EXPORTERS if name.startswith("qwen3vl_host_")]
    assert ours
    for name in ours:
        assert f'{name}{{kind="deploy",result="rolled_back",version="1.5.0"}} ' in text
