"""Which hosts pictures may be fetched from, by name. Says nothing of addresses: see addresses.py."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PATTERN = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")


class HostAllowList:
    """Exact hosts (`img.example.com`, `203.0.113.7`, `::1`), `*.example.com` for every name below it, `*` for all.

    `*.example.com` does not allow `example.com` itself, as in TLS certificates; unlike there, it spans several labels.
    An empty list allows nothing. A malformed pattern is a ValueError at start, not a silent "no" later.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: set[str] = set()
        self._suffixes: tuple[str, ...] = ()
        self._all = False
        for pattern in patterns:
            self._add(pattern.strip().lower())

    def _add(self, pattern: str) -> None:
        if pattern == "*":
            self._all = True
        elif ":" in pattern:
            self._exact.add(str(ip_address(pattern.strip("[]"))))
        elif not _PATTERN.fullmatch(pattern) or ".." in pattern:
            message = f"image host {pattern!r} is not a host name, *.name or *: leave out scheme, port and path"
            raise ValueError(message)
        elif pattern.startswith("*."):
            self._suffixes += (pattern[1:],)
        else:
            self._exact.add(pattern)

    def __bool__(self) -> bool:
        """Whether any host at all is allowed."""
        return self._all or bool(self._exact or self._suffixes)

    def allows(self, host: str) -> bool:
        """Whether `host`, as parse_url gives it (lower case, no brackets, no trailing dot), may be fetched from."""
        # An IP literal matches only exactly: "1.2.3.4" ends with ".3.4" but is not below it.
        return self._all or host in self._exact or host.endswith(self._suffixes)
