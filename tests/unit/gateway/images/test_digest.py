from __future__ import annotations

import hashlib

import pytest

from gateway.images import digest, tenant_uuid


def test_a_digest_is_sha_256_of_the_bytes():
    assert digest(b"abc") == hashlib.sha256(b"abc").digest()
    assert digest(b"abc") != digest(b"abd")


def test_tenants_call_the_same_picture_differently():
    content = digest(b"picture")
    names = {tenant_uuid(secret, tenant, content) for secret in (b"s1", b"s2") for tenant in ("a", "b")}
    assert len(names) == 4
    assert tenant_uuid(b"s1", "a", content) == tenant_uuid(b"s1", "a", content)
    assert all(len(name) == 64 and int(name, 16) >= 0 for name in names)


def test_a_uuid_needs_a_whole_digest():
    with pytest.raises(ValueError, match="32 bytes"):
        tenant_uuid(b"s", "a", b"short")
