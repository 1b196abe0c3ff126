"""Bytes of a connection to requests: by llhttp, or by comparison where a head is the same as the last one."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import httptools

from gateway.errors import HeadTooLarge, MalformedRequest
from gateway.http_server.head import Head, scope_of

if TYPE_CHECKING:
    from gateway.asgi import Scope

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's target and headers, trailers included; nginx allows 32 KiB."""
MAX_QUIET_BYTES = MAX_HEAD_BYTES + 2 * 256 * 1024
"""Received since a head began or a piece of the body came, with the whole read in which that was (256 KiB at most): a
header's name or a chunk extension without an end would fill the memory."""
STRANGE_HEADS = 8
"""In a row, each unlike the one before: from then on a connection's heads are parsed and not remembered."""


class UpgradeAsked(Exception):
    """A head asks for another protocol: what follows it cannot be told from that."""


class Requests(Protocol):
    """Who is told of requests, in the middle of `feed`."""

    def begin(self, head: Head) -> None:
        """A head is here."""

    def add(self, piece: bytes) -> None:
        """A piece of its body."""

    def end(self) -> None:
        """Its end."""

    def whole(self, head: Head, body: bytes) -> None:
        """All of a request in one."""


class RequestReader:
    """Reads the requests of one connection, one after the other."""

    def __init__(self, requests: Requests, scope: Scope) -> None:
        """`scope` is what they all have in common."""
        self._requests = requests
        self._scope = scope
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._read_bytes = 0
        """Of the last read."""
        self._quiet_bytes = 0
        """See MAX_QUIET_BYTES."""
        self._begun = 0
        """So many requests has the parser begun to read."""
        self._between = True
        """It has read all of them to their ends."""
        self._last: Head | None = None
        """Of the one it has read last."""
        self._body_bytes = 0
        """Of its body."""
        self._known: Head | None = None
        """The last request's, if the next one's may be known by it."""
        self._strange_heads = 0
        self._missing_bytes = 0
        """Of the body whose head was known: it does not go through the parser either."""

    def feed(self, data: bytes) -> None:
        """Read on. Raises MalformedRequest, HeadTooLarge or UpgradeAsked, after which nothing more can be read."""
        known = self._known
        if self._missing_bytes:
            self._go_on(data)
        elif known is not None and self._between and (found := known.found_in(data)) is not None:
            head, body = found
            self._known = head
            self._strange_heads = 0
            missing = head.length - len(body)
            if not missing:
                self._requests.whole(head, body)
            else:
                self._missing_bytes = missing
                self._requests.begin(head)
                if body:
                    self._requests.add(body)
        else:
            self._parse(data)

    def close(self) -> None:
        """Read nothing more: the parser knows this reader, and a ring of objects would wait for the collector."""
        self._parser = None

    def _go_on(self, data: bytes) -> None:
        """With the body whose head was known."""
        missing = self._missing_bytes
        piece, rest = (data, b"") if len(data) <= missing else (data[:missing], data[missing:])
        self._missing_bytes = missing - len(piece)
        self._requests.add(piece)
        if not self._missing_bytes:
            self._requests.end()
        if rest:
            self.feed(rest)

    def _parse(self, data: bytes) -> None:
        self._read_bytes = len(data)
        self._quiet_bytes += len(data)
        between, begun, last = self._between, self._begun, self._last
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            raise UpgradeAsked from exc
        except HeadTooLarge:
            raise
        except httptools.HttpParserError as exc:
            if isinstance(exc.__context__, HeadTooLarge):
                raise exc.__context__ from None
            raise MalformedRequest("This is no HTTP/1.1 request.") from exc
        # A head, or a trailer, that has not ended: measured only where it could be too large.
        if self._quiet_bytes > MAX_HEAD_BYTES and (
            self._quiet_bytes > MAX_QUIET_BYTES or self._head_size() > MAX_HEAD_BYTES
        ):
            raise _too_large()
        if between and self._begun == begun + 1 and self._last is not last and self._last is not None:
            self._remember(self._last, data)

    def _remember(self, head: Head, data: bytes) -> None:
        """One request has begun with `data`, in which its head has ended: the next one may begin alike."""
        self._strange_heads += 1
        self._known = None
        if self._strange_heads <= STRANGE_HEADS and head.learn(data[: len(data) - self._body_bytes]):
            self._known = head

    def _head_size(self) -> int:
        return len(self._url) + sum(map(len, chain.from_iterable(self._headers)))

    # httptools -------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """httptools: a request's first byte."""
        self._url = b""
        self._headers = []
        self._quiet_bytes = self._read_bytes
        self._begun += 1
        self._between = False

    def on_url(self, url: bytes) -> None:
        """httptools: a piece of the target."""
        self._url += url
        if len(self._url) > MAX_HEAD_BYTES:
            raise _too_large()

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header, or a trailer, which nobody reads. As short as can be: an SDK sends sixteen."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """httptools: the empty line."""
        parser, headers = self._parser, self._headers
        if self._quiet_bytes > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            raise _too_large()
        scope = {**self._scope, **scope_of(parser, self._url, headers)}
        self._headers = []  # A trailer is no header: a proxy in front may have taken the header of that name away.
        self._body_bytes = 0
        head = self._last = Head(scope, keep_alive=scope["http_version"] != "1.0" and parser.should_keep_alive())
        if not head.keep_alive:
            self._known = None  # It is the last one: what comes after it is none.
        self._requests.begin(head)

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body."""
        self._quiet_bytes = self._read_bytes  # What stands behind it in the same read counts.
        self._body_bytes += len(data)
        self._requests.add(data)

    def on_message_complete(self) -> None:
        """httptools: the request's end."""
        self._between = True
        self._requests.end()


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")
