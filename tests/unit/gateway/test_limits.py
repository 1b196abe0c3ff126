"""What a key may take: let in, refused with the reason, corrected once, and never the reason why all stops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, body_of
from gateway.limit_redis import RedisLimitStore
from gateway.limit_stores import LimitStoreError, MemoryLimitStore
from gateway.limits import BudgetSpent, Grant, Limiter, LimitExceeded, Limits, RequestTooLarge, duration
from tests.support import waiting
from tests.support.redis_server import RedisServer

START_S = 1_800_000_000.25


class Clock:
    """Unix seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


class AwayStore:
    """A store that cannot be asked."""

    async def admit(self, *_):
        raise LimitStoreError("away")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock) -> Limiter:
    return Limiter(MemoryLimitStore(clock), lambda: pytest.fail("the store is never away"))


async def refused(limiter, limits, tokens=0) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as raised:
        await limiter.admit("k", limits, tokens)
    return raised.value


class TestRefusals:
    async def test_too_many_requests(self, limiter):
        limits = Limits(requests_per_minute=1)
        await limiter.admit("k", limits, 0)
        error = await refused(limiter, limits)
        assert (error.status, error.type, error.reason) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert (error.which, error.retry_after_s) == ("requests", 61)
        assert error.message == "The key's limit of 1 requests a minute is reached. Try again in 1m1s."
        assert error.headers == (
            (b"x-ratelimit-limit-requests", b"1"),
            (b"x-ratelimit-remaining-requests", b"0"),
            (b"x-ratelimit-reset-requests", b"1m1s"),
        )
        assert b'"code":"rate_limit_exceeded"' in body_of(error)

    async def test_too_many_tokens(self, limiter, clock):
        limits = Limits(tokens_per_minute=100)
        await limiter.admit("k", limits, 80)
        clock.now_s += 60.5
        error = await refused(limiter, limits, 30)
        assert (error.which, error.retry_after_s, error.reason) == ("tokens", 1, "rate_limit_exceeded")
        assert error.message == (
            "The key may use 100 tokens a minute, 20 are left, and this request asks for up to 30. Try again in 250ms."
        )

    async def test_too_many_at_once(self, limiter):
        limits = Limits(concurrent_requests=1)
        await limiter.admit("k", limits, 0)
        error = await refused(limiter, limits)
        assert (error.which, error.retry_after_s, error.headers) == ("concurrency", 1, ())
        assert "1 requests under way at once" in error.message

    async def test_the_days_budget_is_spent_and_the_sdk_is_told_not_to_retry(self, limiter):
        limits = Limits(tokens_per_day=100)
        await limiter.admit("k", limits, 80)
        error = await refused(limiter, limits, 30)
        assert isinstance(error, BudgetSpent)
        assert (error.which, error.reason, error.retry_after_s) == ("daily_tokens", "insufficient_quota", 16 * 3600)
        assert error.message.endswith("Try again in 16h0m0s.")
        assert error.headers == ((b"x-should-retry", b"false"),)

    @pytest.mark.parametrize(
        ("limits", "which", "words"),
        [
            (Limits(tokens_per_minute=100), "tokens", "may use 100 a minute"),
            (Limits(tokens_per_minute=1000, tokens_per_day=100), "daily_tokens", "may use 100 a day"),
        ],
    )
    async def test_a_request_that_never_fits_is_refused_for_good_and_takes_nothing(self, limiter, limits, which, words):
        error = await refused(limiter, limits, 101)
        assert isinstance(error, RequestTooLarge)
        assert (error.which, error.retry_after_s) == (which, None)
        assert words in error.message
        assert "lower `max_tokens`" in error.message
        assert error.headers == ((b"x-should-retry", b"false"),)
        await limiter.admit("k", limits, 100)

    async def test_every_refusal_is_an_answer(self, limiter):
        assert isinstance(await refused(limiter, Limits(tokens_per_minute=1), 2), GatewayError)


class TestGrants:
    async def test_headers_have_openais_names_and_forms(self, limiter):
        grant = await limiter.admit("k", Limits(requests_per_minute=10, tokens_per_minute=5000), 1200)
        assert dict(grant.headers()) == {
            b"x-ratelimit-limit-requests": b"10",
            b"x-ratelimit-remaining-requests": b"9",
            b"x-ratelimit-reset-requests": b"1m1s",
            b"x-ratelimit-limit-tokens": b"5000",
            b"x-ratelimit-remaining-tokens": b"3800",
            b"x-ratelimit-reset-tokens": b"1m1s",
        }

    async def test_a_key_without_limits_asks_no_store(self):
        grant = await Limiter(AwayStore(), lambda: pytest.fail("not asked")).admit("k", Limits(), 10**9)
        assert grant.headers() == ()
        grant.settle(5)
        grant.release()

    async def test_a_release_frees_one_place_however_often_it_is_called(self, limiter):
        limits = Limits(concurrent_requests=2)
        first, _ = await limiter.admit("k", limits, 0), await limiter.admit("k", limits, 0)
        first.release()
        first.release()
        await limiter.admit("k", limits, 0)
        assert (await refused(limiter, limits)).which == "concurrency"

    async def test_the_first_settlement_counts_and_is_booked_once(self, limiter):
        limits = Limits(tokens_per_minute=1000)
        grant = await limiter.admit("k", limits, 600)
        grant.settle(100)
        grant.settle(0)
        grant.release()
        grant.settle(0)
        grant.release()
        await limiter.admit("k", limits, 900)
        assert (await refused(limiter, limits, 1)).which == "tokens"

    async def test_without_a_settlement_the_estimate_stands(self, limiter):
        limits = Limits(tokens_per_minute=1000)
        (await limiter.admit("k", limits, 600)).release()
        assert (await refused(limiter, limits, 401)).which == "tokens"
        await limiter.admit("k", limits, 400)

    @given(charged=st.integers(0, 1000), actual=st.integers(-1000, 3000))
    async def test_a_settlement_leaves_what_was_used(self, charged, actual):
        limiter = Limiter(MemoryLimitStore(Clock()), lambda: None)
        limits = Limits(tokens_per_minute=1000)
        grant = await limiter.admit("k", limits, charged)
        grant.settle(actual)
        grant.release()
        left = dict((await limiter.admit("k", limits, 0)).headers())[b"x-ratelimit-remaining-tokens"]
        assert int(left) == max(0, 1000 - max(0, actual))

    async def test_a_requests_only_key_needs_no_end(self, limiter):
        grant = await limiter.admit("k", Limits(requests_per_minute=5), 100)
        assert grant._charge is None

    async def test_closing_closes_the_store(self, limiter):
        await limiter.aclose()

    @pytest.mark.parametrize(
        ("own", "both"),
        [
            (Limits(), Limits(1, 2, 3, 4)),
            (Limits(9), Limits(9, 2, 3, 4)),
            (Limits(None, 9, 9, 9), Limits(1, 9, 9, 9)),
        ],
    )
    def test_a_key_s_own_limits_go_before_the_defaults(self, own, both):
        assert own.or_else(Limits(1, 2, 3, 4)) == both


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1001, "2s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (86_399_001, "24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(ms, text):
    assert duration(ms) == text


class TestAway:
    async def test_a_store_that_is_away_lets_all_through_and_each_is_counted(self):
        counted: list[int] = []
        limiter = Limiter(AwayStore(), lambda: counted.append(1))
        grants = [await limiter.admit("k", Limits(1, 1, 1, 1), 1) for _ in range(5)]
        assert counted == [1] * 5
        for grant in grants:
            assert isinstance(grant, Grant)
            assert grant.headers() == ()
            grant.settle(3)
            grant.release()

    async def test_redis_killed_under_load_lets_requests_go_on_and_recovers_without_a_restart(self):
        unlimited: list[int] = []
        lost: list[int] = []
        answered = refusals = 0
        with RedisServer() as server:
            store = RedisLimitStore(server.url, lambda: lost.append(1), timeout_s=5, pause_s=0.02)
            limiter = Limiter(store, lambda: unlimited.append(1))
            limits = Limits(requests_per_minute=50, tokens_per_minute=10**6, concurrent_requests=100)
            over = asyncio.Event()

            async def client():
                nonlocal answered, refusals
                while not over.is_set():
                    try:
                        grant = await limiter.admit("k", limits, 10)
                    except LimitExceeded:
                        refusals += 1
                        await asyncio.sleep(0)
                        continue
                    answered += 1
                    await asyncio.sleep(0)
                    grant.settle(5)
                    grant.release()

            clients = [asyncio.create_task(client()) for _ in range(8)]
            await until(lambda: refusals > 50)
            assert answered == 50
            assert unlimited == []
            server.kill()
            await until(lambda: len(unlimited) > 500)
            assert answered == 50 + len(unlimited)
            server.restart()
            now = refusals
            await until(lambda: refusals > now + 50)  # Limits hold again.
            over.set()
            await asyncio.gather(*clients)
            # A Redis that lost its memory starts at zero: 50 more and no other.
            assert answered == 50 + len(unlimited) + 50
            await limiter.aclose()


until = partial(waiting.until, deadline_s=20)


REPLICA = """
import asyncio, sys
from gateway.limit_redis import RedisLimitStore
from gateway.limits import Limiter, LimitExceeded, Limits

async def main():
    unlimited = []
    limiter = Limiter(RedisLimitStore(sys.argv[1], print, timeout_s=30), lambda: unlimited.append(1))
    await limiter.admit("another", Limits(requests_per_minute=9), 0)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    limits = Limits(requests_per_minute=100, tokens_per_minute=10**6, concurrent_requests=1000, tokens_per_day=10**6)
    got = await asyncio.gather(*(limiter.admit("k", limits, 5) for _ in range(200)), return_exceptions=True)
    refused = sum(isinstance(one, LimitExceeded) for one in got)
    for grant in got:
        if not isinstance(grant, Exception):
            grant.settle(2)
            grant.release()
    await limiter.aclose()
    print(len(got) - refused, refused, len(unlimited))

asyncio.run(main())
"""


def test_three_processes_let_exactly_100_of_600_through(redis_server):
    argv = [sys.executable, "-c", REPLICA, redis_server.url]
    replicas = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(3)
    ]
    try:
        for replica in replicas:
            assert replica.stdout.readline() == "ready\n"
        for replica in replicas:
            replica.stdin.write("go\n")
            replica.stdin.flush()
        results = [[int(word) for word in replica.communicate(timeout=60)[0].split()] for replica in replicas]
    finally:
        for replica in replicas:
            replica.kill()
            replica.communicate()
    let_through, refusals, unlimited = (sum(column) for column in zip(*results, strict=True))
    assert (let_through, refusals, unlimited) == (100, 500, 0)
    assert redis_server.command("HGET", "qwen3vl:limits:{k}:book", "r").startswith("$3")
    assert redis_server.command("EXISTS", "qwen3vl:limits:{k}:leases") == ":0"
