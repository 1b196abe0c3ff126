"""Engines given as a name: `dns+http://name:port` stands for all addresses of the name."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

SCHEME = "dns+http"


@dataclass(frozen=True, slots=True)
class Name:
    """A name whose addresses are engines."""

    host: str
    port: int

    def url(self, address: str) -> str:
        """The base URL of the engine at one of its addresses."""
        return f"http://[{address}]:{self.port}" if ":" in address else f"http://{address}:{self.port}"


def name_of(url: str) -> Name:
    """`dns+http://name:port`, taken apart. Raises ValueError for anything else."""
    parts = urlsplit(url)
    if parts.scheme != SCHEME or not parts.hostname or not parts.port or url != f"{SCHEME}://{parts.netloc}":
        raise ValueError(f"{url!r} must be {SCHEME}://name:port and no more")
    if "@" in parts.netloc:
        raise ValueError("an engine's name takes no user: set GATEWAY_ENGINE_API_KEY")
    return Name(parts.hostname, parts.port)
