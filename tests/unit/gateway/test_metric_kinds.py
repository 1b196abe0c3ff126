from __future__ import annotations

import gc

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from gateway.metric_kinds import BoundedLabel, Children, Count, Distribution, Level, publish
from gateway.telemetry import STEPS


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_what_is_counted_is_seen_once_it_is_published(registry):
    children = Children(Counter("things", "Things.", ("a", "b"), registry=registry), Count)
    labels = {"a": "x", "b": "y"}
    children["x", "y"].inc()
    children["x", "y"].inc(2)
    assert registry.get_sample_value("things_total", labels) == 0
    publish()
    publish()
    assert registry.get_sample_value("things_total", labels) == 3
    children["x", "y"].inc()
    publish()
    assert registry.get_sample_value("things_total", labels) == 4
    assert list(children) == [("x", "y")]


def test_a_level_is_seen_as_it_is(registry):
    level = Level(Gauge("under_way", "Under way.", registry=registry))
    for value in (2, 1):
        level.value = value
        publish()
        assert registry.get_sample_value("under_way") == value


def test_a_distribution_is_what_the_histogram_itself_would_have_counted(registry):
    buckets = (0.1, 1, 10)
    own = Histogram("own", "Own.", ("a",), buckets=buckets, registry=registry)
    tallied = Children(Histogram("tallied", "Tallied.", ("a",), buckets=buckets, registry=registry), Distribution)
    for amounts in ((0.05, 0.1, 0.100001, 1), (5, 10, 11, 1e9, 0)):
        for amount in amounts:
            own.labels("x").observe(amount)
            tallied["x",].observe(amount)
        publish()
        for suffix, labels in (
            ("count", {}), ("sum", {}), *(("bucket", {"le": le}) for le in ("0.1", "1.0", "10.0", "+Inf")),
        ):  # fmt: skip
            expected = registry.get_sample_value(f"own_{suffix}", {"a": "x", **labels})
            assert registry.get_sample_value(f"tallied_{suffix}", {"a": "x", **labels}) == pytest.approx(expected)


def test_who_looks_at_the_registry_sees_what_has_just_been_counted():
    children = Children(STEPS, Distribution)
    children["of-a-test",].observe(1)
    assert REGISTRY.get_sample_value("gateway_step_duration_seconds_count", {"step": "of-a-test"}) == 1


def test_a_tally_that_nobody_holds_is_forgotten(registry):
    gauge = Gauge("forgotten", "Forgotten.", registry=registry)
    level = Level(gauge)
    level.value = 1
    del level
    gc.collect()
    publish()
    assert registry.get_sample_value("forgotten") == 0


class TestBoundedLabel:
    def test_beyond_the_limit_everything_is_other(self):
        label = BoundedLabel(2)
        label.offer(["a", "b", "c"])
        assert [label("a"), label("b"), label("c"), label("never offered"), label(None)] == ["a", "b", *["other"] * 3]

    def test_a_name_is_kept_when_newer_ones_are_offered_first(self):
        label = BoundedLabel(2)
        label.offer(["a"])
        label.offer(["new", "newer", "a"])
        assert [label("a"), label("new"), label("newer")] == ["a", "new", "other"]

    def test_with_a_limit_of_none_nobody_has_a_name(self):
        label = BoundedLabel(0)
        label.offer(["a"])
        assert label("a") == "other"
