"""One HTTP exchange with the standard library: no redirect is followed, no proxy used, no secret told in a fault."""

from __future__ import annotations

import http.client
import urllib.parse


class NoExchange(Exception):
    """Nothing came back; the message has the host at most, never a path or a query, which may be secret."""


def request(
    method: str, url: str, headers: dict[str, str], payload: bytes | None, timeout_s: float
) -> tuple[int, bytes]:
    """Return status and body; `timeout_s` is for each wait, not for all together. Raises NoExchange."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise NoExchange("this is no http(s) address") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise NoExchange("this is no http(s) address: it has to begin with https://")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = kind(host, port, timeout=timeout_s)
    try:
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except TimeoutError:
        raise NoExchange(f"{host}: nothing within {timeout_s:g} s") from None
    except (OSError, http.client.HTTPException) as exc:
        said = "" if isinstance(exc, http.client.InvalidURL) else f": {exc}"
        raise NoExchange(f"{host}: {type(exc).__name__}{said}") from exc
    finally:
        connection.close()
