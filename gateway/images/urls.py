"""Text → the one place a picture URL is taken apart. Refuses all that two URL parsers could read differently.

Backslashes, userinfo, control characters, odd number notations and Unicode hosts are how URL checks are bypassed
(for vLLM itself: CVE-2026-24779). The host found here is checked, connected to and put into `Host`/SNI: nothing
parses the URL a second time, the client library gets the parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote, urljoin

from yarl import URL

from gateway.images.refused import ImageRefused

MAX_URL_CHARS = 8_000
"""Signed URLs reach about 2,000; servers commonly accept 8 KiB of request line (RFC 9110 4.1 asks for that much)."""

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?", re.IGNORECASE
)
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# WHATWG URL, "ends in a number": such a host is an IPv4 address in some notation, never a name.
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65_535
_MAX_HOST_CHARS = 253  # RFC 1035 2.3.4
_URI_CHARS = (
    "%/:?[]@!$&'()*+,;=-._~"  # RFC 3986 2.2 and 2.3: sent as they came, so that a signed URL keeps its signature
)


@dataclass(frozen=True, slots=True)
class Target:
    """One hop, taken apart. `host` is lower case and without brackets; `address` is set when it is an IP literal."""

    scheme: str
    host: str
    port: int
    address: IPv4Address | IPv6Address | None
    request: URL
    """What the HTTP client is given; built from the parts above, with path and query as the client wrote them."""


def parse_url(text: str) -> Target:
    """The parts of an absolute http(s) URL.

    Raises ImageRefused(`invalid_url`) for anything else. IPv4 only as four decimal numbers, IPv6 without a zone,
    names in ASCII (punycode for others) without a trailing dot. A fragment is dropped.
    """
    if len(text) > MAX_URL_CHARS:
        raise _invalid(f"it is longer than {MAX_URL_CHARS} characters")
    if _FORBIDDEN.search(text):
        raise _invalid("it holds whitespace, a control character or a backslash; percent-encode it")
    match = _URL.fullmatch(text)
    if match is None:
        raise _invalid("only http:// and https:// URLs, or a data: URL, are accepted")
    if "@" in match["authority"]:
        raise _invalid("a user name or password in the URL is not accepted")
    authority = _AUTHORITY.fullmatch(match["authority"])
    if authority is None:
        raise _invalid("its host is not plain ASCII; write other names in punycode (xn--…)")
    scheme = match["scheme"].lower()
    port = int(authority["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port <= _MAX_PORT:
        raise _invalid("its port is not between 1 and 65535")
    address = _ipv6(authority["v6"]) if authority["v6"] else _ipv4(authority["name"].lower())
    host = authority["name"].lower() if address is None else str(address)
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        address=address,
        request=URL.build(
            scheme=scheme,
            host=f"[{host}]" if ":" in host else host,
            port=port,
            path=quote(match["path"] or "/", safe=_URI_CHARS),
            query_string=quote(match["query"] or "", safe=_URI_CHARS),
            encoded=True,
        ),
    )


def redirect_target(base: Target, location: str) -> Target:
    """The next hop that a `Location` header names, relative or absolute, under the rules of `parse_url`.

    `location` is the server's, so as untrusted as the first URL. What urljoin makes of it is parsed anew.
    """
    # Looked at first: urljoin silently drops tabs and line breaks.
    if _FORBIDDEN.search(location):
        raise _invalid("it redirects to a URL with whitespace, a control character or a backslash")
    try:
        joined = urljoin(str(base.request), location)
    except ValueError as exc:
        raise _invalid("it redirects to a URL that cannot be read") from exc
    return parse_url(joined)


def _ipv4(host: str) -> IPv4Address | None:
    """The address that `host` is, None for a name; refuses every other notation of an address and malformed names."""
    labels = host.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        try:
            return IPv4Address(host)
        except AddressValueError as exc:
            raise _invalid("its host is a number; write an IPv4 address as four decimal numbers") from exc
    if len(host) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise _invalid("its host is not a valid name (no empty labels, no trailing dot)")
    return None


def _ipv6(host: str) -> IPv6Address:
    try:
        return IPv6Address(host)
    except AddressValueError as exc:
        raise _invalid("its host is not a valid IPv6 address") from exc


def _invalid(why: str) -> ImageRefused:
    return ImageRefused("invalid_url", f"the picture's URL is refused: {why}")
