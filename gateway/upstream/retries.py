"""What may be asked of another engine, and how often: never once a byte has gone to the client, never a client's fault.

A budget keeps retries from multiplying an overload: in any short while they are a small part of the requests.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from gateway.errors import EngineUnavailable
from gateway.telemetry import ENGINE_RETRIES, RETRIES_REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.errors import GatewayError
    from gateway.upstream.endpoints import Endpoint, Endpoints

WINDOW_S = 10.0
"""Time constant of the budget: what was longer ago has faded."""
FADES_EVERY_S = 0.05
"""Counts lose less than a hundredth between two times."""
FLOOR = 10
"""Retries within the window that are there whatever the number of requests: at night one engine may die too."""
MAX_LOST = 2
"""Attempts that may end without a word: the request itself may be what kills engines."""
MAX_RETRIES = 2
"""Retries of one request out of the budget."""
BAD_GATEWAYS = frozenset({502, 503, 504})
STOPPING = ("cannot schedule new futures", "EngineCore encountered an issue")
"""What vLLM says with status 500 when it drains, and when its core has died."""
GAVE_UP = "Internal server error"
"""What vLLM says with status 500 (its GenerationError) when it gave one request up and is well itself: above all when
its front end took a picture for cached that its core had not, or not yet. It forgets the picture then; the next try
goes through. Source: vLLM's `MultiModalCacheMissError` and `_raise_if_error`.
"""
ONCE_MORE = frozenset({"closed", "generation"})
"""Failures that say nothing of the engine, which may be asked again itself: a stale connection of the pool, GAVE_UP."""

for _cause in ("connect", "ejected", "closed", "protocol", "broken", "unavailable", "stopping", "abort", "generation"):
    ENGINE_RETRIES.labels(_cause)  # There from the start, so that the first is an increase.


class AskAnother(Exception):
    """This engine did not answer, and nothing has gone to the client: another one may."""

    def __init__(self, cause: str, error: GatewayError, *, lost: bool = False) -> None:
        """`cause` is a word for the metric, `error` what the client gets if nobody answers.

        `lost`: the engine ended without a word, maybe because of this very request.
        """
        super().__init__(cause)
        self.cause = cause
        self.error = error
        self.lost = lost


def unavailable() -> EngineUnavailable:
    """What a client is told when no engine is left."""
    return EngineUnavailable("No engine can be reached at the moment: try again.", retry_after_s=2)


def judged(status: int, error: GatewayError) -> Exception:
    """The engine's refusal: AskAnother when it is the engine's state, `error` itself when it is about the request."""
    if status in BAD_GATEWAYS:
        return AskAnother("unavailable", error)
    if status == 500 and any(text in error.message for text in STOPPING):  # noqa: PLR2004 - Internal Server Error
        return AskAnother("stopping", unavailable(), lost=STOPPING[1] in error.message)
    if status == 500 and error.message == GAVE_UP:  # noqa: PLR2004 - as above
        return AskAnother("generation", error)
    return error


class RetryBudget:
    """At most `ratio` of the requests of the last seconds may be asked again, and `FLOOR` more."""

    def __init__(self, ratio: float, clock: Callable[[], float] = time.monotonic) -> None:
        """A `ratio` of 0 allows no retry at all; `clock` gives seconds."""
        self._ratio = ratio
        self._clock = clock
        self._then = clock()
        self._requests = 0.0
        self._retries = 0.0

    def _fade(self) -> None:
        now = self._clock()
        if now - self._then < FADES_EVERY_S:
            return
        left = math.exp((self._then - now) / WINDOW_S)
        self._then = now
        self._requests *= left
        self._retries *= left

    def count_request(self) -> None:
        """A request is about to be sent for the first time."""
        self._fade()
        self._requests += 1

    def take(self) -> bool:
        """Whether one more retry is within the budget; if so, it is taken."""
        self._fade()
        if not self._ratio or self._retries + 1 > self._ratio * self._requests + FLOOR:
            RETRIES_REFUSED.inc()
            return False
        self._retries += 1
        return True


class Attempts:
    """The engines for one request, one after the other."""

    __slots__ = (
        "_again",
        "_asked",
        "_budget",
        "_cause",
        "_charge",
        "_charged",
        "_endpoints",
        "_error",
        "_key",
        "_lost",
        "retries",
    )  # fmt: skip

    def __init__(self, endpoints: Endpoints, key: bytes | None, budget: RetryBudget) -> None:
        """`key` is the request's affinity."""
        self._endpoints = endpoints
        self._key = key
        self._budget = budget
        self._asked: list[Endpoint] = []
        self._again: Endpoint | None = None
        self._cause = ""
        self._charge = False
        self._lost = 0
        self._charged = 0
        self._error: GatewayError | None = None
        self.retries = 0
        budget.count_request()

    @property
    def error(self) -> GatewayError:
        """What the client gets when `next` has nobody left."""
        return self._error or unavailable()

    def next(self) -> Endpoint | None:
        """The engine to ask now; None when the request has to fail."""
        endpoint = self._endpoints.choose(self._key, self._asked) or self._once_more()
        if endpoint is None or not self._allowed():
            return None
        if self._asked:
            self.retries += 1
            ENGINE_RETRIES.labels(self._cause).inc()
        self._asked.append(endpoint)
        return endpoint

    def _once_more(self) -> Endpoint | None:
        endpoint, self._again = self._again, None
        return None if endpoint is None or endpoint.ejected else endpoint

    def _allowed(self) -> bool:
        if self._lost >= MAX_LOST or self._charged > MAX_RETRIES:
            return False
        return not self._charge or self._budget.take()

    def moved(self, cause: str) -> None:
        """The engine was never reached, or is taken out: asking another adds no load, so the budget is not asked."""
        self._cause, self._charge = cause, False

    def failed(self, endpoint: Endpoint, failure: AskAnother) -> None:
        """The engine has had the request; whether it is asked of another is up to the budget."""
        self._cause, self._charge = failure.cause, True
        self._error = failure.error
        self._lost += failure.lost
        self._charged += 1
        if failure.cause in ONCE_MORE and len(self._asked) == 1:
            self._again = endpoint
