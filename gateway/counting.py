"""Counts a request: at its end by operation, outcome and tenant; a stream's pace on the way; tokens once known.

Children are kept in dicts, so that an ordinary request costs lookups and additions only. Labels: operations and errors
are this code's own words, tenants are bounded; nothing a client or an engine sent becomes one.
"""

from __future__ import annotations

from operator import sub
from typing import TYPE_CHECKING

from gateway.metric_kinds import OTHER, Children, Count, Distribution
from gateway.stages import Operation
from gateway.telemetry import (
    ERRORS,
    FIRST_TOKEN,
    LATENCY,
    LONGEST_GAP,
    PER_TOKEN,
    REQUESTS,
    TENANT,
    TENANT_IMAGES,
    TENANT_REQUESTS,
    TOKENS,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.errors import GatewayError

GEN_AI_OPERATIONS = {
    # OpenTelemetry's well-known values of gen_ai.operation.name; the list of models is no generation.
    Operation.CHAT: "chat",
    Operation.PREDICT: "chat",
    Operation.RESPONSES: "chat",
    Operation.MESSAGES: "chat",
    Operation.COMPLETIONS: "text_completion",
}
EVENT_END = b"\n\n"
GONE = "client_gone"
"""The outcome, and the error type, of a client that left before its answer was complete."""
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left; it is logged and counted, never sent."""
AT_ONCE = (
    # Errors that cost the availability objective. Their series exist from the start: `rate` sees no increase in a
    # series' first value, and the first minutes of an outage would not count.
    ("overload", "queue_full"),
    ("overload", "queue_timeout"),
    ("gateway", "internal_error"),
    ("gateway", "stopping"),
    ("engine", "engine_error"),
    ("engine", "engine_unavailable"),
    ("engine", "engine_timeout"),
    ("engine", "engine_refused"),
)

_requests = Children(REQUESTS, Count)
_errors = Children(ERRORS, Count)
_latency = Children(LATENCY, Distribution)
_first_token = Children(FIRST_TOKEN, Distribution)
_per_token = Children(PER_TOKEN, Distribution)
_longest_gap = Children(LONGEST_GAP, Distribution)
_tenants = Children(TENANT_REQUESTS, Count)
_images = Children(TENANT_IMAGES, Count)
_tokens = Children(TOKENS, Count)
for _operation in GEN_AI_OPERATIONS:
    for _fault in AT_ONCE:
        _errors[(_operation.value, *_fault)].inc(0)


def count_request(
    operation: Operation | None,
    *,
    status: int,
    cache: str,
    tenant: str | None,
    error: GatewayError | None,
    elapsed_s: float,
) -> None:
    """Count a request that is over; `status` is what the client was told, and `operation` None for an unknown path."""
    name = operation or "other"
    outcome, error_type = "ok", ""
    if error is not None:
        outcome, error_type = error.fault_of, error.cause
        _errors[name, outcome, error_type].inc()
    elif status == CLIENT_CLOSED_REQUEST:
        outcome = error_type = GONE
    _requests[name, str(status), cache].value += 1
    if operation in GEN_AI_OPERATIONS:
        _latency[GEN_AI_OPERATIONS[operation], error_type].observe(elapsed_s)
        _tenants[TENANT(tenant), outcome, cache].value += 1


def count_tokens(tenant: str, *, prompt: int, completion: int, image: int, images: int) -> None:
    """Count what an engine did for a tenant; `image` are the tokens of its `images` pictures, part of `prompt`."""
    label = TENANT(tenant)
    _tokens[label, "input"].value += prompt
    _tokens[label, "output"].value += completion
    if images:
        _tokens[label, "image"].inc(image)
        _images[(label,)].inc(images)


def count_first_token(operation: Operation | None, cache: str, elapsed_s: float) -> None:
    """Count a stream whose first event goes out now, `elapsed_s` after the request came in; kept ones too."""
    if operation in GEN_AI_OPERATIONS:
        _first_token[GEN_AI_OPERATIONS[operation], cache].observe(elapsed_s)


def count_pace(operation: Operation | None, times_s: Sequence[float], pieces: Iterable[bytes]) -> None:
    """Count a stream that is over: when its pieces came, and the first of them, of any number of events each.

    Of a single piece there is nothing to tell. Pieces that are not shown are taken for one event.
    """
    if len(times_s) < 2 or times_s[-1] <= times_s[0]:  # noqa: PLR2004 - as said
        return
    events = [piece.count(EVENT_END) for piece in pieces]
    total = sum(events) + len(times_s) - len(events)
    name = OTHER if operation is None else GEN_AI_OPERATIONS.get(operation, OTHER)
    _per_token[name,].observe((times_s[-1] - times_s[0]) / max(1, total - 1))
    _longest_gap[name,].observe(max(map(sub, times_s[1:], times_s)))
