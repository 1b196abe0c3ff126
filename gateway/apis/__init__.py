"""What differs between the APIs that engines serve, one `Api` each; everything else of the gateway is the same for all.

`chat`, `responses` and `messages` find the pictures, `wire` renders errors and knows the end of a stream, `answers`
reads what came back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.apis import chat, messages, responses
from gateway.apis.parts import Found, no_fields
from gateway.apis.wire import (
    CHAT_ENDS,
    MESSAGES_ENDS,
    RESPONSES_ENDS,
    chat_event,
    messages_body,
    messages_event,
    responses_event,
)
from gateway.errors import body_of
from gateway.stages import Operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.errors import GatewayError

__all__ = ["Api", "Found", "api_of", "api_of_path"]


@dataclass(frozen=True, slots=True)
class Api:
    """One API as its clients see it."""

    check: Callable[[dict[str, Any]], None]
    """Refuses (InvalidRequest) or sets fields that only this API has."""
    pictures: Callable[[dict[str, Any]], list[Found]]
    named: Callable[[str], dict[str, Any]] | None
    """The fields of a picture that the engine has, by its name; None where it takes no names for pictures."""
    error_body: Callable[[GatewayError], bytes]
    error_event: Callable[[GatewayError, bytes], bytes]
    """The error as a server-sent event; the second argument is the end of what the client has got."""
    ends: tuple[bytes, ...]
    """A stream whose last events hold none of these was broken off."""
    usage_mark: bytes
    """Only the event with this in it can tell the usage; no generated text can hold it unescaped."""


CHAT = Api(no_fields, chat.pictures, chat.named, body_of, chat_event, CHAT_ENDS, b'"choices":[]')
RESPONSES = Api(
    responses.check, responses.pictures, None, body_of, responses_event, RESPONSES_ENDS, b"event: response.completed\n"
)
MESSAGES = Api(
    no_fields, messages.pictures, None, messages_body, messages_event, MESSAGES_ENDS, b"event: message_delta\n"
)


OWN = {Operation.RESPONSES: RESPONSES, Operation.MESSAGES: MESSAGES}


def api_of(operation: Operation | None) -> Api:
    """The operation's API; OpenAI's chat API stands for whatever has none of its own."""
    return CHAT if operation is None else OWN.get(operation, CHAT)


def api_of_path(path: str) -> Api:
    """Whose clients ask for `path`, whether or not it is there: the shape of errors."""
    return MESSAGES if path.startswith(Operation.MESSAGES.value) else CHAT
