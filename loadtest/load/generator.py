"""Sends the plan on time and notes what comes back: one generator fills one process of Locust.

The client is geventhttpclient (llhttp in C over plain sockets): a request costs a fraction of what the SDK's httpx or
requests cost, so one core of generator outruns the service. The bytes are the SDK's all the same, see wire.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gevent
from gevent.pool import Group
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError

from loadtest.load import plan, wire
from loadtest.load.outcome import ANSWER_KEPT, Outcome
from loadtest.load.pictures import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geventhttpclient.response import HTTPSocketPoolResponse

    from loadtest.load.answers import Checker
    from loadtest.load.plan import Planned
    from loadtest.load.scenario import Phase, Scenario

CONNECT_TIMEOUT_S = 10.0
CONNECTIONS = 4096
"""At once; more requests than that wait for one, and their latency shows it."""
BLOCK_BYTES = 65536
OK = 200


@dataclass(slots=True)
class Received:
    """An answer while it comes; times as of `time.perf_counter`."""

    text: str = ""
    finish: str = ""
    fault: str = ""
    cache: str = ""
    first_at: float | None = None
    last_at: float = 0.0
    gaps_s: tuple[float, ...] = ()


class Generator:
    """Plays its share of each step. `nonce` is the run's own number, so that no cache knows its requests."""

    def __init__(
        self, url: str, key: str, model: str, scenario: Scenario, checker: Checker, timeout_s: float, nonce: int
    ) -> None:
        self._http = HTTPClient.from_url(
            url,
            concurrency=CONNECTIONS,
            connection_timeout=CONNECT_TIMEOUT_S,
            network_timeout=timeout_s,
            block_size=BLOCK_BYTES,
        )
        self._headers = wire.headers(key)
        self._model = model
        self._scenario = scenario
        self._checker = checker
        self._nonce = nonce
        self._pool = Pool(scenario, lambda: gevent.sleep(0))

    def play(
        self, step: int, phases: Sequence[Phase], share: int, shares: int, told: Callable[[Outcome], object]
    ) -> None:
        """Send this generator's part of a step; returns when all have an outcome."""
        planned = plan.requests(phases, self._scenario.traffic, plan.seed_of(self._scenario, step))
        under_way = Group()
        begun = time.perf_counter()
        try:
            for one in plan.share_of(planned, share, shares):
                body = self._body(step, one)  # before its time comes: a photograph takes milliseconds
                due = begun + one.at_s
                # Also when it is late: those under way need their turns.
                gevent.sleep(max(0.0, due - time.perf_counter()))
                under_way.add(gevent.spawn(lambda *what: told(self._one(*what)), step, one, body, due))
            under_way.join()
        finally:
            under_way.kill()

    def alone(self, step: int, one: Planned) -> str:
        """Ask once more, past the caches; the answer, or the fault."""
        received = self._ask(self._body(step, one), {**self._headers, "Cache-Control": "no-cache"}, one)
        return (received.fault or received.text)[:ANSWER_KEPT]

    def _body(self, step: int, one: Planned) -> bytes:
        traffic = self._scenario.traffic[one.traffic]
        asked = self._pool.asked(one.traffic, one.question)
        # A run must not meet the answers of the run before in a cache.
        seed = (self._nonce if traffic.cacheable else hash((self._nonce, step, one.number))) % wire.SEEDS
        return wire.body(self._model, traffic, one, asked, seed)

    def _one(self, step: int, one: Planned, body: bytes, due: float) -> Outcome:
        traffic = self._scenario.traffic[one.traffic]
        late_s = time.perf_counter() - due
        received = self._ask(body, self._headers, one)
        asked = self._pool.asked(one.traffic, one.question)
        right = not received.fault and self._checker.right(
            asked, received.text, photo=traffic.photo_scale > 1, cut=received.finish == "length"
        )
        return Outcome(
            step=step,
            number=one.number,
            traffic=traffic.name,
            planned_s=one.at_s,
            late_s=late_s,
            ttft_s=None if received.first_at is None else received.first_at - due,
            e2e_s=received.last_at - due,
            gaps_s=received.gaps_s,
            fault=received.fault,
            right=right,
            cache=received.cache,
            sent_bytes=len(body),
            answer="" if right else received.text[:ANSWER_KEPT],
        )

    def _ask(self, body: bytes, headers: dict[str, str], one: Planned) -> Received:
        received = Received()
        try:
            response = self._http.request("POST", wire.PATH, body, headers)
            try:
                received.cache = str(response.get("x-cache", ""))
                if response.status_code != OK:
                    received.fault = wire.refusal(response.status_code, response.read())
                elif one.streamed:
                    _read_stream(response, received)
                else:
                    received.text, received.finish = wire.whole(response.read())
            finally:
                response.release()
        except (OSError, HTTPParseError, ValueError) as exc:
            received.fault = f"{type(exc).__name__}: {exc}"[:100]
        if received.finish == "abort":
            received.fault = "aborted"  # vLLM says so with status 200, while it drains
        received.last_at = time.perf_counter()
        return received


def _read_stream(response: HTTPSocketPoolResponse, received: Received) -> None:
    stream, gaps, before = wire.Stream(), [], None
    while event := response.readline(wire.EVENT_END):
        if stream.take(event):
            now = time.perf_counter()
            if before is None:
                received.first_at = now
            else:
                gaps.append(now - before)
            before = now
    received.text, received.finish, received.gaps_s = stream.text, stream.finish, tuple(gaps)
    received.fault = stream.fault or ("" if stream.done else "the stream broke off")
