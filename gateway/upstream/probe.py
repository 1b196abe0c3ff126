"""Finds engines that hang or are gone: asks each for one token now and then, and takes out what does not answer.

vLLM's own /health stays 200 while its engine core hangs, so only a generated token counts. A busy engine may keep a
probe waiting behind its queue: it is taken out only if nothing at all has come from it meanwhile, and its count of
tokens stands still, which tells one that works on long answers from one that hangs.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Literal

from gateway.errors import EngineTimeout, GatewayError
from gateway.telemetry import ENGINE_FAILURES
from gateway.upstream.client import EngineUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.upstream.client import EngineClient
    from gateway.upstream.endpoints import Endpoint

    Outcome = Literal["token", "silent", "gone", "broken"]
    """`silent`: it takes connections and says nothing; `gone`: it takes none; `broken`: it fails."""

ONE_TOKEN = b'{"prompt":"ping","max_tokens":1,"temperature":0}'
SERVER_ERRORS = 500
COUNT_S = 1.0
"""Between two looks at an engine's count of tokens, and the longest that one takes."""
TOKENS = re.compile(rb"^vllm:(?:generation|prompt)_tokens_total(?:\{[^\n]*\})? ([0-9.e+]+)$", re.MULTILINE)
"""vLLM's counters of tokens in the text that Prometheus reads."""
LOOKS = 5
"""How often, in the time that an engine may be silent, it is looked whether an answer has come from it meanwhile."""

log = logging.getLogger(__name__)


class Prober:
    """Watches engines, each in a task of its own."""

    def __init__(
        self,
        client: EngineClient,
        headers: Mapping[str, str],
        *,
        interval_s: float,
        timeout_s: float,
        on_restore: Callable[[], None],
    ) -> None:
        """A hung engine is out `interval_s` + 6/5 `timeout_s` + COUNT_S after its last sign of life, at the latest."""
        self._client = client
        self._headers = headers
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._on_restore = on_restore
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}

    def start(self, endpoint: Endpoint) -> None:
        """Watch it from now on, until its address is gone and it has finished; once, however often it is asked."""
        if endpoint not in self._tasks:
            task = self._tasks[endpoint] = asyncio.get_running_loop().create_task(self._watch(endpoint))
            task.add_done_callback(lambda _: self._tasks.pop(endpoint, None))

    async def aclose(self) -> None:
        """Watch no more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, endpoint: Endpoint) -> None:
        for cause in ("hung", "gone", "broken"):
            ENGINE_FAILURES.labels(endpoint.url, cause)  # There from the start, so that the first is an increase.
        clock = asyncio.get_running_loop().time
        alive_at = clock()
        while endpoint.in_flight or not endpoint.leaving:
            answers = endpoint.answers
            outcome = await self._ask(endpoint)
            if outcome == "token" or endpoint.answers != answers:
                alive_at = clock()
            if outcome == "token":
                self._found(endpoint)
            elif outcome == "silent":
                if not await self._counts(endpoint):
                    self._lost(endpoint, "hung")
            elif clock() - alive_at > self._timeout_s:
                self._lost(endpoint, outcome)
            elif not endpoint.ejected:
                # It drains, or has just died: what it has begun may well come to its end.
                log.error("engine refuses and gets nothing new", extra={"engine": endpoint.url})
                ENGINE_FAILURES.labels(endpoint.url, outcome).inc()
                endpoint.close()
            # One that is out is what clients wait for: look at it more often.
            await asyncio.sleep(self._interval_s / 4 if endpoint.ejected else self._interval_s)

    def _found(self, endpoint: Endpoint) -> None:
        if not endpoint.proven:
            log.warning("engine generates", extra={"engine": endpoint.url})
            endpoint.prove()
            self._on_restore()

    def _lost(self, endpoint: Endpoint, cause: str) -> None:
        if not endpoint.ejected:
            log.error("engine does not answer and is taken out", extra={"engine": endpoint.url})
            ENGINE_FAILURES.labels(endpoint.url, cause).inc()
        endpoint.eject()

    async def _ask(self, endpoint: Endpoint) -> Outcome:
        """What a probe finds; `silent` once neither it nor any client has got an answer for `timeout_s`."""
        probe = asyncio.get_running_loop().create_task(self._probe(endpoint))
        try:
            answers, quiet = endpoint.answers, 0
            while quiet < LOOKS:
                done, _ = await asyncio.wait({probe}, timeout=self._timeout_s / LOOKS)
                if done:
                    return probe.result()
                quiet = quiet + 1 if endpoint.answers == answers else 0
                answers = endpoint.answers
            return "silent"
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)

    async def _probe(self, endpoint: Endpoint) -> Outcome:
        headers = {**self._headers, **endpoint.headers}
        try:
            response = await self._client.send("POST", f"{endpoint.url}/v1/completions", headers, ONE_TOKEN)
            try:
                await response.read()
            finally:
                response.close()
        except EngineTimeout:
            return "silent"
        except EngineUnreachable:
            return "gone"
        except GatewayError:
            return "broken"
        # A refusal is a sign of life too; that a model takes no plain completions is no reason to take it out.
        return "token" if response.status < SERVER_ERRORS else "broken"

    async def _counts(self, endpoint: Endpoint) -> bool:
        before = await self._tokens(endpoint)
        if before is None:
            return False
        await asyncio.sleep(COUNT_S)
        after = await self._tokens(endpoint)
        return after is not None and after > before

    async def _tokens(self, endpoint: Endpoint) -> float | None:
        """How many tokens it has read and written; None if it does not say."""
        try:
            async with asyncio.timeout(COUNT_S):
                response = await self._client.send("GET", f"{endpoint.url}/metrics", endpoint.headers, None)
                try:
                    counts = TOKENS.findall(await response.read())
                finally:
                    response.close()
        except (TimeoutError, EngineUnreachable, GatewayError):
            return None
        return sum(map(float, counts)) if counts else None
