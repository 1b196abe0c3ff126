"""KEDA's and the HPA's arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.autoscale.policy import Autoscaler, Policy, Signal, Trigger, recommend

IN_FLIGHT = Trigger(Signal.IN_FLIGHT, 10)
POLICY = Policy((IN_FLIGHT,), max_replicas=8)


def load(in_flight, waiting=0.0):
    return {Signal.IN_FLIGHT: float(in_flight), Signal.WAITING: float(waiting), Signal.CPU: 0.0}


@pytest.mark.parametrize(
    ("replicas", "in_flight", "wanted"),
    [(1, 10, 1), (1, 12, 2), (10, 109, 10), (2, 21, 2), (2, 45, 5), (4, 37, 4), (4, 35, 4), (4, 29, 3), (3, 0, 0)],
)
def test_it_asks_for_as_many_as_bring_each_to_the_target_with_ten_per_cent_of_tolerance(replicas, in_flight, wanted):
    assert recommend(replicas, load(in_flight), [IN_FLIGHT]) == wanted


def test_the_trigger_that_asks_for_most_wins():
    triggers = [IN_FLIGHT, Trigger(Signal.WAITING, 4)]
    assert recommend(1, load(10, waiting=12), triggers) == 3


def test_scale_up_is_at_most_four_pods_or_double_in_fifteen_seconds():
    scaler = Autoscaler(replace(POLICY, max_replicas=100))
    assert scaler.sync(0, 1, load(1000)) == 5
    assert scaler.sync(5, 5, load(1000)) == 5, "the four of this period are used up"
    assert scaler.sync(15, 5, load(1000)) == 10
    assert scaler.sync(30, 10, load(1000)) == 20


def test_a_limit_for_one_cold_start_holds_that_long():
    scaler = Autoscaler(replace(POLICY, up_pods=1, up_share=0, up_period_s=180))
    counts = [1]
    for now_s in range(0, 361, 15):
        counts.append(scaler.sync(now_s, counts[-1], load(1000)))
    assert counts[-1] == 4
    assert counts[12] == 2


def test_it_never_leaves_the_bounds():
    scaler = Autoscaler(replace(POLICY, min_replicas=2, down_window_s=0))
    assert scaler.sync(0, 6, load(100_000)) == 8
    assert scaler.sync(60, 2, load(0)) == 2


def test_the_window_keeps_what_was_wanted_within_it():
    scaler = Autoscaler(replace(POLICY, down_window_s=300, down_pods=8))
    assert scaler.sync(0, 4, load(40)) == 4
    for now_s in range(15, 300, 15):
        assert scaler.sync(now_s, 4, load(10)) == 4
    assert scaler.sync(300, 4, load(10)) == 1


def test_one_pod_a_minute_goes():
    scaler = Autoscaler(replace(POLICY, down_window_s=0))
    counts = [4]
    for now_s in range(0, 181, 15):
        counts.append(scaler.sync(now_s, counts[-1], load(10)))
    assert counts == [4, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1]


class TestZero:
    policy = replace(POLICY, min_replicas=0, cooldown_s=300)

    def test_one_held_request_wakes_an_engine(self):
        assert Autoscaler(self.policy).poll(0, 0, load(1)) == 1

    def test_the_hpa_does_nothing_at_zero(self):
        assert Autoscaler(self.policy).sync(0, 0, load(1000)) == 0

    def test_the_last_one_goes_when_the_cooldown_is_over_and_not_before(self):
        scaler = Autoscaler(self.policy)
        scaler.poll(0, 1, load(1))
        assert [scaler.poll(now_s, 1, load(0)) for now_s in (15, 285, 299, 300)] == [1, 1, 1, 0]

    def test_the_hpa_never_takes_the_last_one(self):
        assert Autoscaler(replace(self.policy, down_window_s=0)).sync(0, 1, load(0)) == 1

    def test_with_a_minimum_keda_never_goes_to_zero(self):
        assert Autoscaler(POLICY).poll(10_000, 1, load(0)) == 1
