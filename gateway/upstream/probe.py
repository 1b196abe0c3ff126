"""Finds engines that hang or are gone: asks each for one token now and then, and takes out what does not answer.

vLLM's own /health stays 200 while its engine core hangs, so only a generated token counts. A busy engine may keep a
probe waiting behind its queue: it is taken out only if nothing at all has come from it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.errors import EngineTimeout, GatewayError
from gateway.telemetry import ENGINE_FAILURES
from gateway.upstream.client import EngineUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.upstream.client import EngineClient
    from gateway.upstream.endpoints import Endpoint

ONE_TOKEN = b'{"prompt":"ping","max_tokens":1,"temperature":0}'
SERVER_ERRORS = 500

log = logging.getLogger(__name__)


class Prober:
    """Watches engines for ever."""

    def __init__(
        self,
        client: EngineClient,
        headers: Mapping[str, str],
        *,
        interval_s: float,
        timeout_s: float,
        on_restore: Callable[[], None],
    ) -> None:
        """A hung engine is out `interval_s` + `timeout_s` after its last sign of life, at the latest."""
        self._client = client
        self._headers = headers
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._on_restore = on_restore

    async def watch(self, endpoint: Endpoint) -> None:
        """Probe, judge, wait; ends when cancelled."""
        for cause in ("hung", "gone", "broken"):
            ENGINE_FAILURES.labels(endpoint.url, cause)  # There from the start, so that the first is an increase.
        while True:
            answers = endpoint.answers
            if (fault := await self._fault(endpoint)) is None:
                if not endpoint.proven:
                    log.warning("engine generates", extra={"engine": endpoint.url})
                    endpoint.prove()
                    self._on_restore()
            elif not endpoint.ejected and endpoint.answers == answers:
                log.error("engine does not answer and is taken out", extra={"engine": endpoint.url, "cause": fault})
                ENGINE_FAILURES.labels(endpoint.url, fault).inc()
                endpoint.eject()
            # One that is out is what clients wait for: look at it more often.
            await asyncio.sleep(self._interval_s / 4 if endpoint.ejected else self._interval_s)

    async def _fault(self, endpoint: Endpoint) -> str | None:
        """None, or `hung` (it takes connections and says nothing), `gone` (it takes none), `broken` (it fails)."""
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.send("POST", f"{endpoint.url}/v1/completions", self._headers, ONE_TOKEN)
                try:
                    await response.read()
                finally:
                    response.close()
        except EngineUnreachable:
            return "gone"
        except (TimeoutError, EngineTimeout):
            return "hung"
        except GatewayError:
            return "broken"
        # A refusal is a sign of life too; that a model takes no plain completions is no reason to take it out.
        return None if response.status < SERVER_ERRORS else "broken"
