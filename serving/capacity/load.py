"""Seconds -> requests a second, engines, waiting. An estimate: steady state, equal requests, no prefix shared.

In the time of one answer an engine that decodes B requests makes (output - 1) decode steps and prefills B new ones: it
serves B / ((output - 1) x step(B) + B x prefill) requests a second. That grows with B, so the engine's best is at the
largest batch that --max-num-seqs and the KV cache allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.capacity import kv, memory, roofline

if TYPE_CHECKING:
    from serving.capacity.question import Question

TARGET_UTILIZATION = 0.8
"""Share of the saturated rate that an engine is planned for: above it the wait grows fast."""

_ROUNDS = 200


@dataclass(frozen=True)
class Service:
    """What engines do under the load that is asked for."""

    batch: int
    """The most requests an engine decodes at once."""
    saturated_requests_per_s: float
    """Of one engine, when there is always another request."""
    sustainable_requests_per_s: float
    """Of one engine at the target utilization."""
    engines: int
    """For the load."""
    running: float
    """Requests in decode on each engine, on average, at its share of the load."""
    decode_step_s: float
    """Time between two tokens of an answer at that load, prefills of others included."""
    first_token_s: float
    """Mean time to the first token at that load: prefill, stretched by the wait for other prefills (M/D/1)."""


def kv_capacity(question: Question) -> kv.Capacity:
    """Return what the memory that is left holds."""
    engine = question.engine
    available = memory.budget(question.model, engine).available
    return kv.capacity(available, engine.layout(question.model), engine.context_tokens)


def concurrent_requests(question: Question) -> int:
    """Count the requests of this load that an engine runs at once, each at its full length."""
    return min(question.engine.max_requests, kv_capacity(question).requests(question.request_tokens))


def saturated_requests_per_s(question: Question, batch: int) -> float:
    """Return what an engine serves when it always decodes `batch` requests (at least 1)."""
    steps = max(0, question.load.output_tokens - 1)
    return batch / (steps * roofline.decode_step_s(question, batch) + batch * roofline.prefill_share_s(question))


def service(question: Question) -> Service:
    """Plan engines for a load. The question must be one that `fits` accepts: an engine must hold one request."""
    batch = concurrent_requests(question)
    saturated = saturated_requests_per_s(question, batch)
    sustainable = saturated * TARGET_UTILIZATION
    engines = max(1, math.ceil(question.load.requests_per_second / sustainable))
    rate = question.load.requests_per_second / engines
    busy = rate * roofline.prefill_share_s(question)  # below the target utilization, so below 1
    running, step_s = settle(question, rate, busy, batch)
    return Service(batch, saturated, sustainable, engines, running, step_s, first_token_s(question, busy, step_s))


def first_token_s(question: Question, busy: float, step_s: float) -> float:
    """Return the mean time to the first token of an engine that spends the share `busy` (below 1) in prefill.

    Half a step until it is looked at, the wait for other prefills (M/D/1: u / (2 (1 - u)) prefills), its own.
    """
    return roofline.prefill_s(question) * (1 + busy / (2 * (1 - busy))) + step_s / 2


def settle(question: Question, rate: float, busy: float, batch: int) -> tuple[float, float]:
    """Find the batch at which as many requests end as arrive (Little's law), and its time between tokens.

    `rate` is the engine's requests a second, `busy` (below 1) its share of time in prefill, `batch` its most requests.
    """
    running, step_s = 0.0, roofline.decode_step_s(question, 0) / (1 - busy)
    for _ in range(_ROUNDS):
        running = min(batch, rate * max(0, question.load.output_tokens - 1) * step_s)
        step_s = roofline.decode_step_s(question, running) / (1 - busy)
    return running, step_s
