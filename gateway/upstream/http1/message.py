"""Requests as bytes: where to, and the head. Pure; whatever could smuggle a second header or request is refused."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORTS = {"http": 80, "https": 443}
START_LINES = 2
"""The request line and `host`."""
KNOWN_URLS = 1024
"""Engines times paths: enough that none is taken apart twice."""


class Origin(NamedTuple):
    """Where connections go; those to one origin are interchangeable."""

    host: str
    port: int
    tls: bool


@lru_cache(maxsize=KNOWN_URLS)
def start_of(method: str, url: str) -> tuple[Origin, str]:
    """The origin, and the request line with the `Host` header. Raises ValueError for what is no plain http(s) URL."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise ValueError("An engine's URL must be http://HOST or https://HOST.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("An engine's URL must hold no user name or password: set GATEWAY_ENGINE_API_KEY.")
    default = DEFAULT_PORTS[parts.scheme]
    # A zone such as %eth0 means something on this machine only.
    bracketed = f"[{host.partition('%')[0]}]" if ":" in host else host.encode("idna").decode("ascii")
    named = bracketed if port in {None, default} else f"{bracketed}:{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    start = f"{method} {target} HTTP/1.1\r\nhost: {named}\r\n"
    # Two spaces in the request line and one after `host:`; a third would end the target early.
    if not start.isascii() or not start.replace("\r\n", "").isprintable() or start.count(" ") != 3:  # noqa: PLR2004
        raise ValueError("An engine's URL holds a character that must be percent-encoded.")
    return Origin(host, port or default, parts.scheme == "https"), start


def head_of(start: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """The whole head. `headers` are the caller's but for those that frame the message; a `host` replaces the URL's.

    Raises ValueError for a line break or a NUL in a header: it would start a header, or a request, of its own.
    """
    own_lines = START_LINES
    if "host" in headers:
        start, own_lines = start[: start.index("\r\n") + 2], START_LINES - 1
    lines = list(map("%s: %s\r\n".__mod__, headers.items()))
    if body is not None:
        lines.append(f"content-length: {len(body)}\r\n")
    text = f"{start}{''.join(lines)}\r\n"
    line_ends = len(lines) + own_lines + 1  # and the empty line
    if text.count("\r") != line_ends or text.count("\n") != line_ends or "\0" in text:
        raise ValueError("A header for the engine holds a line break or a NUL.")
    return text.encode("latin-1")
