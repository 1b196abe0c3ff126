"""What a picture server's headers say about keeping its answer: how long, and how to ask whether it has changed.

RFC 9111 as a *shared* cache, on the cautious side: nothing is guessed (no heuristic freshness, 4.2.2), nothing stale is
ever given (4.2.4). Pure: reads headers, keeps nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FRESH_S = 86_400.0
"""However long a server allows: a picture that was replaced by mistake is seen again after a day."""
_MAX_SECONDS_DIGITS = 9
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')  # RFC 9110 8.8.3, without obs-text, and of a sane length
_HTTP_DATE = re.compile(r"[A-Za-z0-9:, -]{1,40}")
_NEVER_KEPT = frozenset({"no-store", "private"})


@dataclass(frozen=True, slots=True)
class Validators:
    """How to ask `source` whether its picture has changed. Empty texts are validators the server did not give."""

    source: str
    """`name_of` the URL that answered, after redirects: only it is asked, as another server's ETag says nothing."""
    etag: str = ""
    last_modified: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to ask with."""
        return bool(self.etag or self.last_modified)

    @property
    def conditions(self) -> dict[str, str]:
        """The request headers that ask (RFC 9110 13.1)."""
        asked = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in asked.items() if value}


def name_of(url: str) -> str:
    """A URL's name where it is kept: a digest, as signed URLs carry their secret in themselves. 32 hex digits."""
    return hashlib.blake2b(url.encode(), digest_size=16).hexdigest()


def validators_of(source: str, headers: Mapping[str, str]) -> Validators:
    """What the answer of `source` (see `name_of`) may be asked about later; malformed validators count as absent."""
    etag, last_modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    return Validators(
        source,
        etag if _ETAG.fullmatch(etag) else "",
        last_modified if _HTTP_DATE.fullmatch(last_modified) else "",
    )


def fresh_s(headers: Mapping[str, str]) -> float | None:
    """Seconds for which the answer may be given again unasked, 0 to MAX_FRESH_S; None when it must not be kept.

    Order of RFC 9111 4.2.1: `s-maxage`, `max-age`, `Expires` minus `Date`; less `Age`. What cannot be read is 0.
    """
    control = ",".join(_all(headers, "Cache-Control")).lower()
    directives = dict(item.strip().partition("=")[::2] for item in control.split(","))
    # Every request of ours has the same headers, so no other Vary can tell two of them apart.
    if _NEVER_KEPT & directives.keys() or "*" in ",".join(_all(headers, "Vary")):
        return None
    if "no-cache" in directives:
        return 0.0
    for name in ("s-maxage", "max-age"):
        if name in directives:
            lifetime_s: float = _seconds(directives[name])
            break
    else:
        lifetime_s = _expires_in_s(headers)
    return min(MAX_FRESH_S, max(0.0, lifetime_s - _seconds(headers.get("Age", "0"))))


def _all(headers: Mapping[str, str], name: str) -> list[str]:
    """Every line of a header: HTTP clients' mappings have `getall`, plain ones hold one value."""
    getall = getattr(headers, "getall", None)
    return list(getall(name, [])) if getall is not None else [headers[name]] if name in headers else []


def _seconds(text: str) -> int:
    text = text.strip(' "')
    return int(text[:_MAX_SECONDS_DIGITS]) if text.isascii() and text.isdigit() else 0


def _expires_in_s(headers: Mapping[str, str]) -> float:
    try:
        # Both clocks are the server's, so it does not matter how wrong ours is.
        expires, date = (parsedate_to_datetime(headers[name]) for name in ("Expires", "Date"))
        return (expires - date).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        return 0.0
