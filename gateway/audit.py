"""One JSON line for each inference: who asked what, what came back, how long it took.

Writing never blocks or fails a request: records go through a bounded queue to a thread, which reads the answers' bytes
and writes; what does not fit is dropped and counted. Keys and pictures are never written, only their names; prompts and
outputs as they are, or as hashes, by policy.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import sys
import threading
from collections import deque
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any, Literal

import orjson

from gateway.telemetry import AUDIT_DROPPED, AUDIT_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Policy = Literal["full", "hash"]
MAX_WAITING = 1000
WRITE_EVERY_S = 0.1
WRITE_AT_ONCE = 64
"""So that the file is rotated not far from where it should be."""
MAX_OUTPUT_BYTES = 1024 * 1024
"""Of a longer answer only the beginning is recorded."""
_DATA = b"data: "
_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Happening:
    """What a request was and became, still raw: the thread makes the record of it."""

    facts: dict[str, Any]
    """What is known without looking: time, ids, tenant, status, cache, steps."""
    prompt: Any
    """`messages` or `prompt` of the request, without pictures: a queue of those would fill the memory."""
    output: bytes
    """The answer as the client got it, JSON or server-sent events, at most MAX_OUTPUT_BYTES."""


class Audit:
    """Takes happenings in, writes records out."""

    def __init__(self, sink: logging.Handler, *, policy: Policy, secret: bytes) -> None:
        """`secret` keys the hashes of policy `hash`: without it, a guess at a prompt could be confirmed."""
        self._sink = sink
        self._policy = policy
        self._secret = secret
        self._waiting: deque[Happening] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()

    def submit(self, happening: Happening) -> None:
        """Hand over; at once, whatever happens."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(happening)
        else:
            AUDIT_DROPPED.labels("queue_full").inc()

    def close(self) -> None:
        """Write what waits, then end."""
        self._closing.set()
        self._thread.join()
        self._write()
        self._sink.close()

    def _work(self) -> None:
        # Not woken for each record: two threads that hand the interpreter to and fro cost more than the record does.
        while not self._closing.wait(WRITE_EVERY_S):
            self._write()

    def _write(self) -> None:
        while self._waiting:
            lines = [line for line in map(self._line, self._taken()) if line is not None]
            if not lines:
                continue
            try:
                self._sink.emit(logging.makeLogRecord({"msg": "\n".join(lines)}))
            except Exception:
                # The outermost rescue of this thread: records are lost, never the thread.
                AUDIT_DROPPED.labels("error").inc(len(lines))
                logging.getLogger(__name__).exception("audit records could not be written")
            else:
                AUDIT_WRITTEN.inc(len(lines))

    def _taken(self) -> list[Happening]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), WRITE_AT_ONCE))]

    def _line(self, happening: Happening) -> str | None:
        try:
            return orjson.dumps(self.record(happening)).decode()
        except Exception:
            AUDIT_DROPPED.labels("error").inc()
            logging.getLogger(__name__).exception("an audit record could not be made")
            return None

    def record(self, happening: Happening) -> dict[str, Any]:
        """The record as it is written."""
        text, usage, finish = answer_of(happening.output)
        return {
            **happening.facts,
            "prompt": happening.prompt if self._policy == "full" else self._hash(orjson.dumps(happening.prompt)),
            "output": text if self._policy == "full" else self._hash(text.encode()),
            "finish_reason": finish,
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
        }

    def _hash(self, data: bytes) -> str:
        return "hmac-sha256:" + hmac.new(self._secret, data, hashlib.sha256).hexdigest()


def sink_of(path: Path | None, *, max_bytes: int, backups: int) -> logging.Handler:
    """A file that is rotated at `max_bytes` and kept `backups` times; standard output without a path."""
    if path is None:
        return logging.StreamHandler(sys.stdout)
    return RotatingFileHandler(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")


def without_pictures(messages: Any, images: Iterable[str]) -> Any:  # noqa: ANN401 - whatever JSON the client sent
    """The messages with each picture replaced by its digest."""
    if not isinstance(messages, list):
        return messages
    digests = iter(images)
    return [_message_without_pictures(message, digests) for message in messages]


def _message_without_pictures(message: Any, digests: Iterator[str]) -> Any:  # noqa: ANN401 - likewise
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    parts = [
        {"type": "image_url", "digest": next(digests, None)}
        if isinstance(part, dict) and part.get("type") == "image_url"
        else part
        for part in message["content"]
    ]
    return {**message, "content": parts}


def answer_of(output: bytes) -> tuple[str, dict[str, Any], str | None]:
    """Text, usage and finish reason of an answer, plain or streamed; what cannot be read is empty."""
    text: list[str] = []
    usage: dict[str, Any] = {}
    finish = None
    for document in _documents(output):
        for choice in document.get("choices") or ():
            message = choice.get("delta") or choice.get("message") or choice
            text.append(message.get("content") or message.get("text") or "")
            finish = choice.get("finish_reason") or finish
        usage = document.get("usage") or usage
    return "".join(text), usage, finish


def _documents(output: bytes) -> Iterator[dict[str, Any]]:
    lines = [line[len(_DATA) :] for line in output.split(b"\n") if line.startswith(_DATA)] or [output]
    for line in lines:
        if line.strip() == _DONE:
            continue
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:  # An answer cut short, or none.
            continue
        if isinstance(document, dict):
            yield document
