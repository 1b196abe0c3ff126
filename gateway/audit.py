"""One JSON line for each inference: who asked what, what came back, how long it took.

Writing never blocks or fails a request: records go through a bounded queue to a thread, which reads the answers' bytes
and writes; what does not fit is dropped and counted. Keys and pictures are never written, only their names; prompts and
outputs as they are, or as hashes, by policy.
"""

from __future__ import annotations

import hmac
import logging
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import orjson

from gateway.apis.answers import answer_of
from gateway.audit_stream import RedisStream, StreamAway
from gateway.telemetry import AUDIT_DROPPED, AUDIT_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Policy = Literal["full", "hash"]
MAX_WAITING = 1000
WRITE_EVERY_S = 0.1
WRITE_AT_ONCE = 64
"""So that the file is rotated not far from where it should be."""
KEPT_ANSWERS = 256
SMALL_BYTES = 4096
"""Kept answers are given again and again: so many that are no larger are read once."""
MAX_OUTPUT_BYTES = 1024 * 1024
"""Of a longer answer only the beginning is recorded."""
PROMPTS = ("instructions", "system", "input", "messages", "prompt")
PROMPT_NAMES = frozenset(PROMPTS)
HOLDERS = frozenset({*PROMPTS, "content", "output"})
"""Where the parts of a prompt stand; elsewhere, in a tool's arguments say, nothing is a picture."""
PICTURES = ("image_url", "input_image", "image")
MAX_DEPTH = 8
"""Fields, messages, their content, a tool result's content: pictures stand no deeper."""


class Happening(msgspec.Struct, frozen=True):
    """What a request was and became, still raw: the thread makes the record of it."""

    facts: dict[str, Any]
    """What is known without looking: ids, tenant, status, cache, steps."""
    prompt: Any
    """What was asked, without pictures: a queue of those would fill the memory."""
    output: bytes
    """The answer as the client got it, JSON or server-sent events, at most MAX_OUTPUT_BYTES."""
    document: dict[str, Any] | None = None
    """A whole answer's JSON, where it has been read."""
    model: Any = None
    """What the client asked for by name."""
    at: float = msgspec.field(default_factory=time.time)
    """When it was over, in seconds since the epoch."""


class Audit:
    """Takes happenings in, writes records out."""

    def __init__(self, sink: logging.Handler, *, policy: Policy, secret: bytes) -> None:
        """`secret` keys the hashes of policy `hash`: without it, a guess at a prompt could be confirmed."""
        self._sink = sink
        self._policy = policy
        self._secret = secret
        self._waiting: deque[Happening] = deque()
        self._closing = threading.Event()
        self._kept = lru_cache(maxsize=KEPT_ANSWERS)(self._read)
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
        if isinstance(self._sink, RedisStream):
            self._sink.hurry()
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
            except StreamAway as exc:
                AUDIT_DROPPED.labels("redis").inc(exc.lost)
                AUDIT_WRITTEN.inc(len(lines) - exc.lost)
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
        if happening.facts.get("cache") == "hit" and len(happening.output) <= SMALL_BYTES:
            output, usage, finish = self._kept(happening.output)
        else:
            output, usage, finish = self._read(happening.output, happening.document)
        return {
            "time": datetime.fromtimestamp(happening.at, UTC),
            **happening.facts,
            "model": happening.model,
            "prompt": happening.prompt if self._policy == "full" else self._hash(orjson.dumps(happening.prompt)),
            "output": output,
            "finish_reason": finish,
            # A stream that did not show the usage to its client: the metering saw it.
            "prompt_tokens": usage.get("prompt_tokens", happening.facts.get("prompt_tokens")),
            "completion_tokens": usage.get("completion_tokens", happening.facts.get("completion_tokens")),
        }

    def _read(self, output: bytes, document: dict[str, Any] | None = None) -> tuple[str, dict[str, Any], str | None]:
        text, usage, finish = answer_of(output, document)
        return text if self._policy == "full" else self._hash(text.encode()), usage, finish

    def _hash(self, data: bytes) -> str:
        # In one call: an object for it takes as long again.
        return "hmac-sha256:" + hmac.digest(self._secret, data, "sha256").hex()


def sink_of(path: Path | None, *, max_bytes: int, backups: int) -> logging.Handler:
    """A file that is rotated at `max_bytes` and kept `backups` times; standard output without a path."""
    if path is None:
        return logging.StreamHandler(sys.stdout)
    return RotatingFileHandler(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")


def prompt_of(body: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever JSON the client sent
    """What was asked: the one field that says it, or several by name, as with `instructions` beside `input`."""
    names = body.keys() & PROMPT_NAMES
    if len(names) == 1:  # It is not worth a name.
        return body[names.pop()]
    return {name: body[name] for name in PROMPTS if name in names} or None


def without_pictures(prompt: Any, images: Iterable[str]) -> Any:  # noqa: ANN401 - likewise
    """The prompt with each picture replaced by its digest, in their order."""
    return _without_pictures(prompt, iter(images), MAX_DEPTH)


def _without_pictures(value: Any, digests: Iterator[str], depth: int) -> Any:  # noqa: ANN401 - likewise
    if isinstance(value, list) and depth:
        return [_without_pictures(item, digests, depth - 1) for item in value]
    if not isinstance(value, dict) or not depth:
        return value
    if value.get("type") in PICTURES:
        return {"type": value["type"], "digest": next(digests, None)}
    inner = {
        name: _without_pictures(item, digests, depth - 1)
        for name, item in value.items()
        if name in HOLDERS and not isinstance(item, str)
    }
    return {**value, **inner} if inner else value
