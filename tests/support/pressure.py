"""What a gateway must show under pressure, at any size: small in `make test`, in full in `make pressure`.

Each scenario asserts what holds at every size, counts every request, and gives one line of figures.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import orjson

from tests.support.gateway import KEY, OTHER_KEY, key_record, write_keys
from tests.support.pictures import data_url, png, question
from tests.support.simulated_engine import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.processes import GatewayProcess, SimulatedEngine
    from tests.support.redis_server import RedisServer

CHAT = "/v1/chat/completions"
REFUSED = {429, 503}
LIMITED_KEY = "sk-test-limited"
"""Of a third tenant, whose requests a minute the scenarios about limits are told."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request and what came of it."""

    status: int
    text: str
    cache: str
    retry_after: str | None
    spent_s: float


class Clients:
    """Asks gateways over as many connections as there are requests at once, and counts what it sends."""

    def __init__(self, gateways: Sequence[GatewayProcess]) -> None:
        timeout = aiohttp.ClientTimeout(total=110)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        self._gateways = gateways
        self._before: Counter[int] = Counter()
        self.sent = 0
        self.statuses: Counter[int] = Counter()

    async def __aenter__(self) -> Self:
        self._before = await self._counted()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _counted(self) -> Counter[int]:
        return sum([await gateway.statuses(CHAT) for gateway in self._gateways], Counter())

    async def ask(self, gateway: GatewayProcess, body: dict[str, Any], key: str = KEY) -> Outcome:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.sent += 1
        begun_s = time.perf_counter()
        async with self._session.post(gateway.url + CHAT, data=orjson.dumps(body), headers=headers) as response:
            content = await response.read()
            spent_s = time.perf_counter() - begun_s
            self.statuses[response.status] += 1
            text = text_of(content) if response.status == 200 else content.decode(errors="replace")
            retry_after = response.headers.get("retry-after")
            return Outcome(response.status, text, response.headers.get("x-cache", ""), retry_after, spent_s)

    @property
    def answered(self) -> int:
        return self.statuses[200]

    @property
    def refused(self) -> int:
        return sum(number for status, number in self.statuses.items() if status in REFUSED)

    async def account(self) -> None:
        """Nothing is lost without an answer: sent = answered + refused, here and in the gateways' own count."""
        assert self.sent == self.answered + self.refused, self.statuses
        async with asyncio.timeout(10):  # A gateway counts after the last byte, which the client has by then.
            while await self._counted() - self._before != self.statuses:
                await asyncio.sleep(0.02)
        for gateway in self._gateways:
            assert await gateway.metric("gateway_in_flight_requests") == 0
            assert await gateway.metric("gateway_queue_depth") == 0


def text_of(content: bytes) -> str:
    """The text of an answer, whole or streamed to its end."""
    if not content.startswith(b"data: "):
        return str(orjson.loads(content)["choices"][0]["message"]["content"])
    *events, end, rest = content.split(b"\n\n")
    assert (end, rest) == (b"data: [DONE]", b""), content[-200:]
    chunks = [orjson.loads(event.removeprefix(b"data: ")) for event in events]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def pictures(count: int) -> list[bytes]:
    return [png((i * 37 % 256, i * 101 % 256, i * 11 % 256), (64 + i, 48)) for i in range(count)]


def plain(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 10, **more}


def keys_file(folder: Path, requests_per_minute: int = 100) -> Path:
    """An interactive tenant, one of bulk, and one with a limit. The first two have one, too, which nobody reaches."""
    return write_keys(
        folder / "keys.json",
        key_record(KEY, "one", priority="interactive", requests_per_minute=1_000_000),
        key_record(OTHER_KEY, "two", priority="bulk", requests_per_minute=1_000_000),
        key_record(LIMITED_KEY, "limited", requests_per_minute=requests_per_minute),
    )


def p99(spent: Sequence[float]) -> float:
    return sorted(spent)[min(len(spent) - 1, int(len(spent) * 0.99))]


async def identical(gateway: GatewayProcess, engine: SimulatedEngine, count: int, *, stream: bool) -> str:
    """`count` identical requests at once cost one engine request and give `count` right answers."""
    await engine.asked()
    (picture,) = pictures(1)
    body = question(data_url(picture), f"identical {count} {stream}", stream=stream)
    async with Clients([gateway]) as clients:
        begun_s = time.perf_counter()
        outcomes = await asyncio.gather(*(clients.ask(gateway, body) for _ in range(count)))
        spent_s = time.perf_counter() - begun_s
        asked = await engine.asked()
        assert asked["requests"] == 1
        ((seen, salt, text, _),) = asked["asked"]
        assert seen == digest(picture)
        assert {outcome.text for outcome in outcomes} == {f"{seen} {salt} {text}"}
        assert [outcome.cache for outcome in outcomes].count("miss") == 1
        assert clients.sent == clients.answered == count
        await clients.account()
    kind = "streamed" if stream else "whole"
    return f"{count} identical at once ({kind}): 1 engine request, {count} right answers, {spent_s:.1f} s"


async def mixed(gateways: Sequence[GatewayProcess], engine: SimulatedEngine, count: int, kinds: int) -> str:
    """`count` requests of two tenants over `kinds` pictures: every answer is its picture's, and its own tenant's."""
    await engine.asked()
    shown = pictures(kinds)
    order = random.Random(count)
    jobs = [(order.randrange(kinds), order.choice((KEY, OTHER_KEY)), order.random() < 0.5) for _ in range(count)]
    gate = asyncio.Semaphore(200)
    async with Clients(gateways) as clients:

        async def one(number: int, picture: int, key: str, stream: bool) -> Outcome:
            async with gate:
                body = question(data_url(shown[picture]), "Which?", stream=stream)
                return await clients.ask(gateways[number % len(gateways)], body, key)

        begun_s = time.perf_counter()
        outcomes = await asyncio.gather(*(one(number, *job) for number, job in enumerate(jobs)))
        spent_s = time.perf_counter() - begun_s
        salts: dict[str, set[str]] = {KEY: set(), OTHER_KEY: set()}
        for (picture, key, _), outcome in zip(jobs, outcomes, strict=True):
            seen, salt, text = outcome.text.split(" ")
            assert (seen, text) == (digest(shown[picture]), "Which?")
            salts[key].add(salt)
        # One salt each: no answer was made for the other tenant.
        assert {len(found) for found in salts.values()} == {1}
        assert salts[KEY] != salts[OTHER_KEY]
        asked = await engine.asked()
        hits = sum(outcome.cache == "hit" for outcome in outcomes)
        assert asked["requests"] == count - hits
        # Every tenant's first question about a picture went to the engine: nothing of the other's was used for it.
        assert {(seen, salt) for seen, salt, *_ in asked["asked"]} == {
            (digest(shown[picture]), *salts[key]) for picture, key, _ in jobs
        }
        assert clients.sent == clients.answered == count
        await clients.account()
    return (
        f"{count} mixed over {kinds} pictures, two tenants, {len(gateways)} gateways: all match, none crossed, "
        f"{hits} from the cache, {asked['requests']} engine requests, {count / spent_s:.0f} requests/s"
    )


async def limited(gateways: Sequence[GatewayProcess], count: int, limit: int) -> str:
    """A key's limit of requests a minute lets exactly so many through, over all gateways."""
    async with Clients(gateways) as clients:
        asks = (clients.ask(gateways[i % len(gateways)], plain(f"limited {i}"), LIMITED_KEY) for i in range(count))
        outcomes = await asyncio.gather(*asks)
        assert clients.statuses == {200: limit, 429: count - limit}
        assert all(1 <= int(outcome.retry_after or 0) <= 61 for outcome in outcomes if outcome.status == 429)
        await clients.account()
    return (
        f"{limit} requests a minute over {len(gateways)} gateways: {limit} of {count} passed, {count - limit} got 429"
    )


async def without_redis(gateways: Sequence[GatewayProcess], server: RedisServer, limit: int, at_once: int) -> str:
    """Redis dies under load: requests go on, counted as unlimited; it comes back: limits hold again, nobody restarts."""
    async with Clients(gateways) as clients:
        going = True
        failed: list[Outcome] = []

        async def client(number: int) -> None:
            while going:
                outcome = await clients.ask(
                    gateways[number % len(gateways)], plain(f"{number} {clients.sent}"), OTHER_KEY
                )
                if outcome.status != 200:
                    failed.append(outcome)

        async def unlimited() -> float:
            return sum([await gateway.metric("gateway_limits_unavailable_total") for gateway in gateways])

        async def until_sent(more: int) -> None:
            end = clients.sent + more
            while clients.sent < end:
                await asyncio.sleep(0.01)

        load = [asyncio.create_task(client(number)) for number in range(at_once)]
        await until_sent(10 * at_once)
        assert await unlimited() == 0
        before = clients.sent
        server.kill()
        while await unlimited() < 5 * at_once:
            await asyncio.sleep(0.05)
        during, let_through = clients.sent - before, await unlimited()
        server.restart()
        while True:  # Each gateway finds it again by itself.
            seen = await unlimited()
            await until_sent(5 * at_once)
            if await unlimited() == seen:
                break
        going = False
        await asyncio.gather(*load)
        assert failed == []
        assert clients.sent == clients.answered
        outcomes = await asyncio.gather(
            *(clients.ask(gateways[i % len(gateways)], plain(f"again {i}"), LIMITED_KEY) for i in range(2 * limit))
        )
        assert Counter(outcome.status for outcome in outcomes) == {200: limit, 429: limit}
        await clients.account()
    return (
        f"Redis killed under load: {during} requests went on, {let_through:.0f} counted as unlimited, 0 failed; "
        f"back again: {limit} of {2 * limit} passed at once"
    )


async def burst(
    gateway: GatewayProcess, engine: SimulatedEngine, *, capacity: int, bulk_s: float, asks: int, pause_s: float
) -> str:
    """20 times the capacity in bulk at once: bulk waits, interactive hardly notices, everybody is answered."""
    async with Clients([gateway]) as clients:

        async def interactive(kind: str) -> list[float]:
            """Paced by the clock, as people come, and not by the answers before."""
            tasks = []
            for i in range(asks):
                tasks.append(asyncio.create_task(clients.ask(gateway, plain(f"{kind} {i}"), KEY)))
                await asyncio.sleep(pause_s)
            outcomes = await asyncio.gather(*tasks)
            assert {outcome.status for outcome in outcomes} == {200}
            return [outcome.spent_s for outcome in outcomes]

        await interactive("warm")
        unloaded = await interactive("unloaded")
        await engine.asked()
        begun_s = time.perf_counter()
        bulk = [
            asyncio.create_task(clients.ask(gateway, plain(f"bulk {i} {bulk_s} s"), OTHER_KEY))
            for i in range(20 * capacity)
        ]
        while await gateway.metric("gateway_queue_depth", priority="bulk") < 10 * capacity:
            await asyncio.sleep(0.02)
        loaded = await interactive("loaded")
        waiting = await gateway.metric("gateway_queue_depth", priority="bulk")
        assert waiting, "the burst was over before the interactive requests were: nothing was shown"
        outcomes = await asyncio.gather(*bulk)
        spent_s = time.perf_counter() - begun_s
        assert {outcome.status for outcome in outcomes} == {200}
        assert (await engine.asked())["most_at_once"] <= capacity
        ratio = p99(loaded) / p99(unloaded)
        figures = (
            f"burst of {20 * capacity} at capacity {capacity}: interactive p99 {p99(unloaded) * 1000:.0f} ms unloaded, "
            f"{p99(loaded) * 1000:.0f} ms under it ({ratio:.2f}x), all {len(bulk)} bulk answered in {spent_s:.1f} s"
        )
        assert ratio <= 2, figures
        await clients.account()
    return figures


async def refused(gateway: GatewayProcess, places: int, count: int) -> str:
    """More than can wait: each request is answered or told at once when to come back."""
    async with Clients([gateway]) as clients:
        outcomes = await asyncio.gather(*(clients.ask(gateway, plain(f"refused {i}")) for i in range(count)))
        assert clients.answered >= places
        assert clients.refused > 0
        assert all(outcome.retry_after for outcome in outcomes if outcome.status == 503)
        await clients.account()
    return f"{clients.sent} sent = {clients.answered} answered + {clients.refused} refused with Retry-After"
