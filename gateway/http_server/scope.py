"""A request's head as an ASGI scope. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools

if TYPE_CHECKING:
    from gateway.asgi import Scope

ASGI = {"version": "3.0", "spec_version": "2.3"}


def common_scope(transport: Any) -> Scope:  # noqa: ANN401 - any of asyncio's or uvloop's
    """What all requests of a connection have in common."""
    return {
        "type": "http",
        "asgi": ASGI,
        "server": _address(transport.get_extra_info("sockname")),
        "client": _address(transport.get_extra_info("peername")),
        "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
        "root_path": "",
    }


def scope_of(parser: httptools.HttpRequestParser, url: bytes, headers: list[tuple[bytes, bytes]]) -> Scope:
    """What is this request's own; `parser` has just read its head, `url` is its target as sent."""
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
