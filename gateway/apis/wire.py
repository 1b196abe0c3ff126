"""How each API says that something went wrong, and that a stream is complete. Pure: errors and bytes in, bytes out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson

from gateway.errors import body_of

if TYPE_CHECKING:
    from gateway.errors import GatewayError

SEQUENCE = re.compile(rb'"sequence_number":(\d{1,9})')
OF_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's types of errors (platform.claude.com/docs, Errors); below 500 any other is `invalid_request_error`."""
SERVER_ERRORS = 500

CHAT_ENDS = (b"\n\ndata: [DONE]",)
RESPONSES_ENDS = (
    b"\nevent: response.completed\n",
    b"\nevent: response.incomplete\n",
    b"\nevent: response.failed\n",
    b"\nevent: error\n",
)
MESSAGES_ENDS = (b"\nevent: message_stop\n", b"\nevent: error\n")
"""What a complete stream has in it, line breaks included: JSON holds none, so no generated text can look like it."""


def responses_event(error: GatewayError, tail: bytes) -> bytes:
    """The Responses API's `error` event, numbered after the last one in `tail`."""
    numbers = SEQUENCE.findall(tail)
    event = {
        "type": "error",
        "code": error.reason or error.type,
        "message": error.message,
        "param": error.param,
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
    }
    return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


def chat_event(error: GatewayError, _: bytes) -> bytes:
    """An error in a stream of chunks, as OpenAI's SDK expects it."""
    return b"data: " + body_of(error) + b"\n\n"


def messages_body(error: GatewayError) -> bytes:
    """The error in Anthropic's shape, which has no `param`: the message names the part."""
    otherwise = "api_error" if error.status >= SERVER_ERRORS else "invalid_request_error"
    message = f"{error.param}: {error.message}" if error.param else error.message
    return orjson.dumps(
        {"type": "error", "error": {"type": OF_STATUS.get(error.status, otherwise), "message": message}}
    )


def messages_event(error: GatewayError, _: bytes) -> bytes:
    """Anthropic's `error` event."""
    return b"event: error\ndata: " + messages_body(error) + b"\n\n"
