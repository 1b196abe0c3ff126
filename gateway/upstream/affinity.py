"""Which engine suits a request: rendezvous hashing by what an engine keeps of earlier ones, with bounded load.

An engine that has seen a picture, or how a conversation begins, need not process that again. Nothing is remembered
here: every worker of every replica comes to the same order from the names alone (docs/decisions/0007).
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from gateway.stages import Located

SALT_BYTES = 16
"""What BLAKE2b takes as salt: it makes an independent hash function for each engine."""
MESSAGE_BYTES = 1024
"""Of each message: enough to tell conversations apart, little enough that a question below a long text does not."""


def affinity_key(located: Located) -> bytes | None:
    """What the request has in common with others that an engine may remember; None when that is nothing.

    The first picture, else the conversation up to its first question, which all its later turns repeat. The tenant is
    part of it because engines keep tenants' pictures and prefixes apart.
    """
    parsed = located.parsed
    tenant = parsed.identified.key.tenant.encode()
    if located.pictures:
        return tenant + b"\0picture\0" + located.pictures[0].digest
    beginning = stable_prefix(parsed.body)
    return tenant + b"\0prompt\0" + beginning if beginning else None


def stable_prefix(body: dict[str, Any]) -> bytes:
    """How the prompt begins; empty if there is none."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        prompt = body.get("prompt") or body.get("input")
        prompt = prompt[:MESSAGE_BYTES] if isinstance(prompt, str | list) else prompt
        return orjson.dumps(prompt)[:MESSAGE_BYTES] if prompt else b""
    beginning = b""
    for message in messages:
        beginning += orjson.dumps(message)[:MESSAGE_BYTES]
        if isinstance(message, dict) and message.get("role") == "user":
            break
    return beginning


def salt_of(url: str) -> bytes:
    """The engine's own part of the hash."""
    return hashlib.blake2b(url.encode(), digest_size=SALT_BYTES).digest()


def score(key: bytes, salt: bytes) -> bytes:
    """Rendezvous hashing: of all engines, the one with the highest score for a key is its first choice.

    When an engine goes, only its own keys get another first choice; when one comes, it takes an equal share from each.
    """
    return hashlib.blake2b(key, digest_size=8, salt=salt).digest()


def load_bound(in_flight: int, engines: int, factor: float) -> int:
    """How many requests an engine may have, the next one included: `factor` times the mean, rounded up.

    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016): with a factor of 1 or more there is
    always an engine below it.
    """
    return math.ceil(factor * (in_flight + 1) / engines)
