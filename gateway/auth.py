"""Address and key to Caller. Fails closed: whatever cannot be decided is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from gateway.address import AddressError, Networks, client_address, is_allowed
from gateway.errors import AddressRefused, InvalidApiKey, ModelNotAllowed
from gateway.stages import Allowed, Identified, Operation, Parsed, RawRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.keys import KeyRing

NO_KEY = "No API key: send `Authorization: Bearer sk-…`."
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

    def admit(self, raw: RawRequest) -> Allowed:
        """Raise AddressRefused for an address off the list, and for one that cannot be told."""
        forwarded = raw.headers.get(b"x-forwarded-for")
        try:
            client = client_address(raw.peer, (forwarded.decode("latin-1"),) if forwarded else (), self._trusted)
        except AddressError as exc:
            raise AddressRefused("The client's address cannot be told from X-Forwarded-For.") from exc
        if not is_allowed(client, self._allowed):
            raise AddressRefused(f"The address {client} may not use this service.")
        return Allowed(raw, client)


class KeyGate:
    """Lets a request in if it holds a valid key that may be used from its address."""

    def __init__(self, keys: RingHolder, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """`now` decides on expiry."""
        self._keys = keys
        self._now = now

    def identify(self, allowed: Allowed) -> Identified:
        """Raise InvalidApiKey for a missing, unknown or expired key, AddressRefused for the wrong place to use it."""
        scheme, _, secret = allowed.raw.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not secret.strip():
            raise InvalidApiKey(NO_KEY)
        key = self._keys.ring.find(secret.strip(), self._now())
        if key is None:
            raise InvalidApiKey(BAD_KEY)
        if key.networks and not is_allowed(allowed.client, key.networks):
            raise AddressRefused(f"The address {allowed.client} may not use this key.")
        return Identified(allowed, key)

    @staticmethod
    def permit(parsed: Parsed) -> Parsed:
        """Raise ModelNotAllowed when the key is bound to models and this is none of them."""
        models = parsed.identified.key.models
        if not models or parsed.identified.allowed.raw.operation is Operation.MODELS:
            return parsed
        # Without a name an engine takes its first one, whichever that is.
        model = parsed.body.setdefault("model", models[0])
        if model not in models:
            shown = model if isinstance(model, str) else "that is no name"
            message = f"The model {shown[:100]} does not exist, or the key may not use it: {', '.join(models)}."
            raise ModelNotAllowed(message, param="model")
        return parsed
