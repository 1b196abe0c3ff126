"""The names of pictures: what a picture is called in the cache, and what the engine may call it."""

from __future__ import annotations

import hashlib
import hmac

DIGEST_BYTES = 32


def digest(data: bytes) -> bytes:
    """SHA-256 of the *source* bytes: the content identity of a picture, 32 bytes.

    However it came (data URL, signed URL, another host), the same file has the same identity; two files that merely
    look alike do not. It is no secret and says nothing about who sent it: a cache key must add the tenant and the
    pixel budget. SHA-256 because servers' CPUs have instructions for it: 4 MiB take 2.3 ms here, BLAKE2b's 4.4; hashlib
    releases the GIL while it runs.
    """
    return hashlib.sha256(data).digest()


def tenant_uuid(secret: bytes, tenant: str, content: bytes) -> str:
    """The `uuid` of an image part for vLLM: 64 hex digits, HMAC-SHA-256 over tenant and content identity.

    vLLM uses `uuid` verbatim as a global cache key, so a guessable one would let a tenant name another's picture.
    `content` must be the digest of the bytes the engine is *sent* (`Encoded.data`): the same source at two pixel
    budgets is two pictures to the engine. The digest's fixed length keeps tenant and content apart in the message.
    """
    if len(content) != DIGEST_BYTES:
        message = f"content must be a digest of {DIGEST_BYTES} bytes, got {len(content)}"
        raise ValueError(message)
    return hmac.new(secret, tenant.encode() + content, hashlib.sha256).hexdigest()
