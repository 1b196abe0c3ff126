"""A request's head: what it says, and how it is known again. Pure.

The requests of one connection begin with the same bytes but for the length of their bodies: an SDK sends 16 headers
each time. Such a head is compared and not parsed, and whatever was found out about it holds still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

import httptools

from gateway.http_server.sent_head import LENGTH, SentHead

if TYPE_CHECKING:
    from gateway.asgi import Headers, Scope

ASGI = {"version": "3.0", "spec_version": "2.3"}


class Head:
    """What a request's head says. Requests of a connection that begin alike share one."""

    __slots__ = ("_sent", "continues", "headers", "keep_alive", "kept", "length", "method", "scope")

    def __init__(self, scope: Scope, *, keep_alive: bool) -> None:
        """`scope` is ASGI's, but for what each request has of its own; `keep_alive` as the client asks for it."""
        self.scope = scope
        self.method: str = scope["method"]
        self.headers = joined(scope["headers"])
        """By name in lower case."""
        self.keep_alive = keep_alive
        self.continues = self.headers.get(b"expect", b"").lower() == b"100-continue"
        """The client waits to be asked for the body."""
        self.kept: dict[str, Any] = {}
        """See asgi.Head."""
        self.length = 0
        """Of the body, in bytes, where it can be known again."""
        self._sent: SentHead | None = None
        """Once it can be known again."""

    def learn(self, sent: bytes) -> bool:
        """Take how it was `sent`, whether the next one may be known by it: see SentHead."""
        if not self.keep_alive or self.continues:
            return False
        self._sent = SentHead.of(sent, self.headers, len(self.scope["headers"]))
        if self._sent is not None:
            self.length = int(self._sent.length)
        return self._sent is not None

    def found_in(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head of the request that `data` begins with, if it is this one but for the length of its body.

        With what has come of the body.
        """
        sent = self._sent
        if sent is None or (found := sent.found_in(data)) is None:
            return None
        digits, body = found
        return self if digits == sent.length else self._with(digits, sent), body

    def _with(self, digits: bytes, sent: SentHead) -> Self:
        """The same head for a body of another length."""
        scope = self.scope.copy()
        headers = scope["headers"] = scope["headers"].copy()
        headers[headers.index((LENGTH, sent.length))] = LENGTH, digits
        head = type(self)(scope, keep_alive=True)
        head.kept = self.kept
        head.length = int(digits)
        head._sent = sent.with_length(digits)  # noqa: SLF001 - its own class
        return head


def joined(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Headers by lower-case name; repeated ones joined by commas (RFC 9110, 5.3)."""
    out = dict(headers)
    if len(out) == len(headers):  # Mostly none is repeated.
        return out
    out = {}
    for name, value in headers:
        out[name] = out[name] + b", " + value if name in out else value
    return out


def common_scope(transport: Any, state: dict[str, Any]) -> Scope:  # noqa: ANN401 - any of asyncio's or uvloop's
    """What all requests of a connection have in common; `state` is the lifespan's."""
    return {
        "type": "http",
        "asgi": ASGI,
        "server": _address(transport.get_extra_info("sockname")),
        "client": _address(transport.get_extra_info("peername")),
        "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
        "root_path": "",
        "state": state,
    }


def scope_of(parser: httptools.HttpRequestParser, url: bytes, headers: list[tuple[bytes, bytes]]) -> Scope:
    """What a head says; `parser` has just read it, `url` is its target as sent."""
    raw_path, query = _target(url)
    path = raw_path.decode("ascii")
    return {
        "http_version": parser.get_http_version(),
        "method": parser.get_method().decode("ascii"),
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": headers,
    }


def _address(name: Any) -> tuple[str, int] | None:  # noqa: ANN401 - a tuple, or a path of a Unix socket
    return (name[0], name[1]) if isinstance(name, tuple) else None


def _target(url: bytes) -> tuple[bytes, bytes]:
    """Path and query. llhttp has checked the target's characters: what it lets through is ASCII."""
    if url[:1] == b"/" and b"#" not in url:
        path, _, query = url.partition(b"?")
        return path, query
    # In another form: absolute, as for a proxy (RFC 9112, 3.2.2), or `*`.
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return b"", b""
    return parsed.path or b"/", parsed.query or b""
