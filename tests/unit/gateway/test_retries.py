from __future__ import annotations

import pytest

from gateway.errors import EngineMisbehaved, EngineUnavailable
from gateway.sse import refusal
from gateway.telemetry import RETRIES_REFUSED
from gateway.upstream.endpoints import Endpoints
from gateway.upstream.retries import (
    FLOOR,
    MAX_RETRIES,
    WINDOW_S,
    AskAnother,
    Attempts,
    RetryBudget,
    judged,
    unavailable,
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def attempts(engines=3, ratio=0.2, key=b"key"):
    return Attempts(Endpoints([f"http://e{i}" for i in range(engines)]), key, RetryBudget(ratio))


def failed(cause="abort", *, lost=False):
    return AskAnother(cause, EngineMisbehaved(cause), lost=lost)


class TestBudget:
    def test_the_floor_is_there_without_any_traffic(self):
        budget = RetryBudget(0.2, Clock())
        assert [budget.take() for _ in range(FLOOR + 1)] == [True] * FLOOR + [False]

    def test_retries_are_a_share_of_the_requests(self):
        budget = RetryBudget(0.2, Clock())
        for _ in range(1000):
            budget.count_request()
        assert sum(budget.take() for _ in range(1000)) == 200 + FLOOR

    def test_what_was_long_ago_counts_no_more(self):
        clock = Clock()
        budget = RetryBudget(0.2, clock)
        for _ in range(1000):
            budget.count_request()
        while budget.take():
            pass
        clock.now = 100 * WINDOW_S
        assert sum(budget.take() for _ in range(1000)) == FLOOR

    def test_a_ratio_of_0_allows_none_and_refusals_are_counted(self):
        before = RETRIES_REFUSED._value.get()
        assert not RetryBudget(0, Clock()).take()
        assert RETRIES_REFUSED._value.get() == before + 1


class TestAttempts:
    def test_every_engine_is_asked_once(self):
        tries = attempts()
        asked = []
        while endpoint := tries.next():
            asked.append(endpoint.url)
            tries.moved("connect")
        assert len(asked) == len(set(asked)) == 3
        assert tries.retries == 2
        assert isinstance(tries.error, EngineUnavailable)

    def test_failures_are_bounded_for_one_request(self):
        tries = attempts(engines=10)
        asked = 0
        while endpoint := tries.next():
            asked += 1
            tries.failed(endpoint, failed())
        assert asked == 1 + MAX_RETRIES
        assert tries.error.message == "abort"

    def test_what_may_kill_engines_is_asked_of_two_at_most(self):
        tries = attempts(engines=10)
        asked = 0
        while endpoint := tries.next():
            asked += 1
            tries.failed(endpoint, failed("broken", lost=True))
        assert asked == 2

    def test_a_stale_connection_is_tried_again_when_there_is_no_other_engine(self):
        tries = attempts(engines=1)
        first = tries.next()
        tries.failed(first, failed("closed", lost=True))
        assert tries.next() is first
        tries.failed(first, failed("closed", lost=True))
        assert tries.next() is None

    def test_an_engine_that_gave_a_request_up_is_asked_again_when_there_is_no_other(self):
        tries = attempts(engines=1)
        first = tries.next()
        tries.failed(first, failed("generation"))
        assert tries.next() is first
        tries.failed(first, failed("generation"))
        assert tries.next() is None

    def test_an_engine_that_failed_otherwise_is_not_asked_again(self):
        tries = attempts(engines=1)
        tries.failed(tries.next(), failed("unavailable"))
        assert tries.next() is None

    def test_without_budget_there_is_no_retry_but_moving_on_is_free(self):
        tries = attempts(ratio=0)
        tries.next()
        tries.moved("ejected")
        second = tries.next()
        assert second is not None
        tries.failed(second, failed())
        assert tries.next() is None


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 413, 422, 429])
def test_a_client_s_fault_is_never_asked_again(status):
    error = refusal(status, b'{"error":{"message":"cannot schedule new futures after shutdown"}}')
    assert judged(status, error) is error


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("body", [b'{"error":"scaling"}', b"<html>"])
def test_a_gateway_s_errors_are_asked_of_another(status, body):
    verdict = judged(status, refusal(status, body))
    assert (verdict.cause, verdict.lost) == ("unavailable", False)


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("cannot schedule new futures after shutdown", False),
        ("EngineCore encountered an issue. See stack trace (above) for the root cause.", True),
    ],
)
def test_an_engine_that_stops_is_no_answer(message, lost):
    verdict = judged(500, refusal(500, b'{"error":{"message":"%s","code":500}}' % message.encode()))
    assert (verdict.cause, verdict.lost, verdict.error.status) == ("stopping", lost, 503)


def test_a_request_that_an_engine_gave_up_may_go_through_the_next_time():
    error = refusal(500, b'{"error":{"message":"Internal server error","code":500}}')
    verdict = judged(500, error)
    assert (verdict.cause, verdict.lost, verdict.error) == ("generation", False, error)


def test_a_defect_of_the_engine_is_told_as_it_is():
    error = refusal(500, b'{"error":{"message":"list index out of range","code":500}}')
    assert judged(500, error) is error


def test_unavailable_says_when_to_come_back():
    assert unavailable().retry_after_s > 0
