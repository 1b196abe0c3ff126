from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from gateway.metric_kinds import BoundedLabel, Children


def test_children_are_the_metrics_own_and_made_once():
    registry = CollectorRegistry()
    counter = Counter("things", "Things.", ("a", "b"), registry=registry)
    children = Children(counter)
    children["x", "y"].inc()
    children["x", "y"].inc()
    assert registry.get_sample_value("things_total", {"a": "x", "b": "y"}) == 2
    assert list(children) == [("x", "y")]


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
