"""What came back from an engine, in whichever API's form: its text, its tokens, whether it is complete.

Documents tell themselves apart: `choices`, `"object": "response"` and `"type": "message"` are fixed by their APIs. What
cannot be read is empty, and never an error: the client gets the bytes as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT_END = b"\n\n"
DATA = b"data: "
DONE = b"[DONE]"
ABORTED = b'"finish_reason":"abort"'
"""How an engine that stops says that it has given a request up. In a text of the model the quotes would be escaped."""
CUT_OFF = (ABORTED, b'"finish_reason":"error"')
"""vLLM's words for an answer that ended while it drains, or by a fault; they come with status 200."""
FAILED = b'data: {"error"'
"""An event of a stream that broke off; vLLM ends it with `[DONE]` all the same. In a text its quotes are escaped."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the engine counted them."""

    prompt: int
    output: int

    @property
    def total(self) -> int:
        """What the request cost."""
        return self.prompt + self.output


def usage_of(document: Any) -> Usage | None:  # noqa: ANN401 - whatever JSON the engine sent
    """The usage in an answer or an event, None if it tells none. Anthropic's counts cached tokens beside the others."""
    if not isinstance(document, dict):
        return None
    if "response" in document and isinstance(response := document["response"], dict):
        document = response
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    try:
        if "prompt_tokens" in usage:
            prompt, total = usage["prompt_tokens"], usage["total_tokens"]
            if type(prompt) is int is type(total) and 0 <= prompt <= total:
                return Usage(prompt, total - prompt)
            return None
        cached = (usage.get(name) or 0 for name in ("cache_read_input_tokens", "cache_creation_input_tokens"))
        return Usage(whole(usage["input_tokens"]) + sum(map(whole, cached)), whole(usage["output_tokens"]))
    except (KeyError, ValueError):
        return None


def whole(count: object) -> int:
    """`count` if it is a whole number, 0 or more; raises ValueError."""
    if not isinstance(count, int) or count < 0:
        raise ValueError("no number of tokens")
    return count


def usage_of_event(event: bytes) -> Usage | None:
    """The usage of one server-sent event."""
    return next((usage for document in documents(event) if (usage := usage_of(document))), None)


def document_of(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a whole answer is, if it is one."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def documents(output: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of an answer, plain or as server-sent events; what is cut short is left out."""
    if output.startswith(b"{"):  # Plain: no event begins so.
        lines = [output]
    else:
        lines = [line[len(DATA) :] for line in output.split(b"\n") if line.startswith(DATA)] or [output]
    for line in lines:
        if line.strip() == DONE:
            continue
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(document, dict):
            yield document


def is_complete(body: bytes, document: dict[str, Any] | None = None, *, streamed: bool) -> bool:
    """Whether an answer came to its own end: not broken off, no error in it, not cut off by a draining engine.

    `document` is a whole answer's JSON, where it has been read.

    Never so for the Responses API: there vLLM 0.32 calls an aborted answer completed (responses/serving.py).
    """
    if CUT_OFF[0] in body or CUT_OFF[1] in body:
        return False
    if not streamed:
        document = document or document_of(body)
        return document is not None and ("choices" in document or _has_stopped(document, "message"))
    last = body.rstrip(b"\n").rpartition(EVENT_END)[2]
    if last == DATA + DONE:
        return FAILED not in body
    if not last.startswith(b"event: message_stop\n") or b"\nevent: error\n" in body:
        return False
    return any(_has_stopped(document, "message_delta") for document in documents(body))


def _has_stopped(document: dict[str, Any], kind: str) -> bool:
    # Without a reason to stop, vLLM has aborted it.
    holder = document.get("delta", document)
    return document.get("type") == kind and isinstance(holder, dict) and isinstance(holder.get("stop_reason"), str)


def answer_of(output: bytes, document: dict[str, Any] | None = None) -> tuple[str, dict[str, Any], str | None]:
    """Text, usage and finish reason of an answer, plain or streamed; what cannot be read is empty.

    `document` is a whole answer's JSON, where it has been read.
    """
    text: list[str] = []
    usage: Usage | None = None
    finish = None
    for one in documents(output) if document is None else (document,):
        pieces, reason = _of_choices(one) if "choices" in one else _of_others(one, streamed=bool(text))
        text += pieces
        finish = reason or finish
        usage = usage_of(one) or usage
    counts = {"prompt_tokens": usage.prompt, "completion_tokens": usage.output} if usage else {}
    return "".join(text), counts, finish


def _of_choices(document: dict[str, Any]) -> tuple[list[str], str | None]:
    text, finish = [], None
    for choice in document.get("choices") or ():
        message = choice.get("delta") or choice.get("message") or choice
        text.append(message.get("content") or message.get("text") or "")
        finish = choice.get("finish_reason") or finish
    return text, finish


def _of_others(document: dict[str, Any], *, streamed: bool) -> tuple[list[str], str | None]:
    """Of the Responses and the Messages API, where `delta` and `response` are a stream's; `streamed` pieces suffice."""
    delta = document.get("delta")
    if isinstance(delta, str):
        return [delta] if document.get("type") == "response.output_text.delta" else [], None
    if isinstance(delta, dict):
        return [delta.get("text") or ""], delta.get("stop_reason")
    answer = document.get("response") or document
    if not isinstance(answer, dict):
        return [], None
    if answer.get("object") == "response":
        parts = [part for item in answer.get("output") or () for part in item.get("content") or ()]
        text = [part["text"] for part in parts if part.get("type") == "output_text"]
        return [] if streamed else text, answer.get("status")
    return [block.get("text") or "" for block in answer.get("content") or ()], answer.get("stop_reason")
