"""One engine: picture preparation in a line, then a batch that shares the GPU."""

from __future__ import annotations

import math

import pytest

from loadtest.autoscale.engine import Engine, EngineModel, Request


def engine(rate=lambda running: 1.0, most=2, preparing_s=0.0):
    return Engine(EngineModel(rate, most, preparing_s), born_s=0.0)


def ends_of(engine, limit=100):
    """(seconds, request) of each end until nothing is left."""
    found = []
    for _ in range(limit):
        at_s = engine.next_event_s()
        if at_s == math.inf:
            return found
        engine.advance(at_s)
        if ended := engine.happen():
            found.append((at_s, ended))
    raise AssertionError("it never came to an end")


def test_two_requests_share_what_one_has_alone():
    one, two = Request(0, 1.0), Request(0, 2.0)
    both = engine()
    both.accept(one)
    both.accept(two)
    # Half the speed each until the first has its 1, at 2 s; the other then has 1 left, alone.
    assert ends_of(both) == [(2.0, one), (3.0, two)]


def test_a_batch_that_scales_slows_nobody_down():
    requests = [Request(0, 1.0) for _ in range(4)]
    scaling = engine(rate=float, most=4)
    for request in requests:
        scaling.accept(request)
    assert [at_s for at_s, _ in ends_of(scaling)] == pytest.approx([1.0] * 4)


def test_above_the_batch_requests_wait_in_order():
    first, second, third = (Request(0, 1.0) for _ in range(3))
    small = engine(most=1)
    for request in (first, second, third):
        small.accept(request)
    assert (small.running, len(small.waiting), small.in_flight) == (1, 2, 3)
    assert [ended for _, ended in ends_of(small)] == [first, second, third]
    assert [request.started_s for request in (first, second, third)] == [0.0, 1.0, 2.0]
    assert small.in_flight == 0


def test_pictures_are_prepared_one_after_the_other_and_count_as_in_flight_not_as_waiting():
    slow = engine(rate=float, most=8, preparing_s=0.5)
    requests = [Request(0, 0.1) for _ in range(3)]
    for request in requests:
        slow.accept(request)
    assert (len(slow.waiting), slow.running, slow.in_flight) == (0, 0, 3)
    ends_of(slow)
    assert [request.started_s for request in requests] == [0.5, 1.0, 1.5]
    assert slow.prepared_s == pytest.approx(1.5)


def test_an_event_planned_before_a_change_can_be_told():
    busy = engine()
    busy.accept(Request(0, 1.0))
    planned = busy.version
    busy.accept(Request(0, 1.0))
    assert busy.version != planned


def test_busy_time_leaves_out_the_pauses():
    paused = engine()
    paused.accept(Request(0, 1.0))
    ends_of(paused)
    paused.advance(11.0)
    paused.accept(Request(11.0, 1.0))
    ends_of(paused)
    assert paused.busy_s == pytest.approx(2.0)
