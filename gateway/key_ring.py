"""What an API key is, and how a secret finds its key. How keys are written: `key_format.py`; the file: `keys.py`.

Only SHA-256 hashes are kept, never keys, so a leaked file opens nothing. A fast hash is enough here, unlike for
passwords: a key is 256 random bits, which nobody guesses however cheap one guess is, and a slow hash on every request
would only make the gateway easy to overload.

No message or `repr` of this module holds a key or a hash, not even when somebody put one into the wrong field.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.address import Networks

SECRET_PREFIX = "sk-"  # noqa: S105  what all keys share, so that scanners recognise a leaked one
SECRET_BYTES = 32
"""Random bytes of a key: 256 bits, 43 characters of URL-safe base64."""

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A tenant's name: nothing that a pattern, a separator or a path could be made of."""


CachePolicy = Literal["deterministic", "always", "never"]
"""Which answers are kept: those to greedy decoding, all, none."""


Priority = Literal["interactive", "default", "bulk"]
"""The class in which its requests wait for an engine."""


class KeyFileError(Exception):
    """The key file cannot be used. The text says why and what to do, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Key:
    """One API key, known by its hash."""

    id: str
    """`k_…` where the tool made it: names the key in logs, metrics and `revoke`."""
    tenant: str
    """Whose key it is: letters, digits, `.`, `_` and `-`, so that it fits cache keys and metric labels as it is."""
    sha256: str = field(repr=False)
    """SHA-256 of the secret in lower-case hex."""
    created: datetime
    """Aware, in UTC."""
    networks: Networks = ()
    """Where it may be used from; empty means anywhere."""
    expires: datetime | None = None
    """The first moment at which it is no longer valid; None means never."""
    name: str = ""
    """A label for people."""
    max_image_pixels: int | None = None
    """Least budget wins: no picture of this key keeps more pixels than this. None leaves it to the settings."""
    cache_policy: CachePolicy | None = None
    """None leaves it to the settings."""
    priority: Priority = "default"
    """Its class in the queue."""
    models: tuple[str, ...] = ()
    """What it may ask for, the first where a request names none; empty means every model."""
    max_images: int | None = None
    """Pictures in one request; None leaves it to the settings, as for the limits below."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None

    def is_expired(self, now: datetime) -> bool:
        """Tell whether its time is over at `now` (aware)."""
        return self.expires is not None and self.expires <= now


class KeyRing:
    """An immutable set of keys, found by their secrets."""

    __slots__ = ("_by_hash", "keys")

    def __init__(self, keys: Iterable[Key]) -> None:
        """Ids and hashes must be unique: `parse_ring` sees to it."""
        self.keys = tuple(keys)
        self._by_hash = {key.sha256: key for key in self.keys}

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, secret: bytes | str, now: datetime) -> Key | None:
        """Return the key with this secret if it is valid at `now` (aware); None when it is unknown or expired.

        The lookup compares hashes, which a caller cannot steer towards a stored one, so its timing tells nothing.
        """
        digest = hash_secret(secret)
        key = self._by_hash.get(digest)
        if key is None or not hmac.compare_digest(key.sha256, digest):
            return None
        return None if key.is_expired(now) else key


def new_secret() -> str:
    """Return a new key: `sk-` and 43 URL-safe characters."""
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_secret(secret: bytes | str) -> str:
    """Return what is kept of a key: its SHA-256 in lower-case hex."""
    # surrogatepass: a header may hold any bytes, and a strange key must be unknown, not an exception.
    raw = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return hashlib.sha256(raw).hexdigest()


def utc_now() -> datetime:
    """Return the time that decides on expiry."""
    return datetime.now(UTC)
