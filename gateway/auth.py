"""Address and key to Caller. Fails closed: whatever cannot be decided is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from gateway.address import Address, AddressError, Networks, client_address, is_allowed
from gateway.errors import AddressRefused, InvalidApiKey
from gateway.stages import Allowed, Identified, Operation, RawRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.keys import Key, KeyRing

NO_KEY = "No API key: send `Authorization: Bearer sk-…`, or `x-api-key` to /v1/messages."
KNOWN_PEERS = 4096
KEY = "key"
"""In `Head.kept`: the ring of keys that was searched, and the key that was found in it."""
NOBODY = None, None
BAD_KEY = "The API key is not valid: check it, or ask for a new one."


class RingHolder(Protocol):
    """Where the current keys are found; KeyFile swaps them while requests go on."""

    @property
    def ring(self) -> KeyRing:
        """The keys as of now."""


class AddressGate:
    """Lets a request in if its client's address is on the allow-list."""

    def __init__(self, allowed: Networks, trusted_proxies: Networks) -> None:
        """`trusted_proxies` are the peers whose X-Forwarded-For is believed."""
        self._allowed = allowed
        self._trusted = trusted_proxies
        # Connections are kept, and proxies are few. What a client writes into a header is not remembered.
        self._direct = lru_cache(maxsize=KNOWN_PEERS)(self._client)

    def admit(self, raw: RawRequest) -> Allowed:
        """Raise AddressRefused for an address off the list, and for one that cannot be told."""
        forwarded = raw.head.headers.get(b"x-forwarded-for")
        return Allowed(raw, self._client(raw.peer, forwarded) if forwarded else self._direct(raw.peer, None))

    def _client(self, peer: str, forwarded: bytes | None) -> Address:
        try:
            client = client_address(peer, (forwarded.decode("latin-1"),) if forwarded else (), self._trusted)
        except AddressError as exc:
            raise AddressRefused("The client's address cannot be told from X-Forwarded-For.") from exc
        if not is_allowed(client, self._allowed):
            raise AddressRefused(f"The address {client} may not use this service.")
        return client


class KeyGate:
    """Lets a request in if it holds a valid key that may be used from its address."""

    def __init__(self, keys: RingHolder, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """`now` decides on expiry."""
        self._keys = keys
        self._now = now

    def identify(self, allowed: Allowed) -> Identified:
        """Raise InvalidApiKey for a missing, unknown or expired key, AddressRefused for the wrong place to use it."""
        ring, kept = self._keys.ring, allowed.raw.head.kept
        known_ring, key = kept.get(KEY, NOBODY)
        if known_ring is not ring or key.expires is not None:
            key = self._found(allowed, ring)
            kept[KEY] = ring, key
        return Identified(allowed, key)

    def _found(self, allowed: Allowed, ring: KeyRing) -> Key:
        secret = secret_of(allowed.raw)
        if not secret:
            raise InvalidApiKey(NO_KEY)
        key = ring.find(secret, self._now())
        if key is None:
            raise InvalidApiKey(BAD_KEY)
        if key.networks and not is_allowed(allowed.client, key.networks):
            raise AddressRefused(f"The address {allowed.client} may not use this key.")
        return key


def secret_of(raw: RawRequest) -> bytes:
    """The key that came with the request, empty if none did. Anthropic's clients have a header of their own for it."""
    authorization = raw.head.headers.get(b"authorization")
    if authorization is None and raw.operation is Operation.MESSAGES:
        return raw.head.headers.get(b"x-api-key", b"").strip()
    scheme, _, secret = (authorization or b"").partition(b" ")
    return secret.strip() if scheme.lower() == b"bearer" else b""
