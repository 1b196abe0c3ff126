"""Who may come in, once the head of their requests is known: what was found out holds as long as it is true."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from gateway.address import parse_networks
from gateway.auth import AddressGate, KeyGate
from gateway.errors import AddressRefused, InvalidApiKey
from gateway.http_server.head import Head
from gateway.key_ring import Key, KeyRing, hash_secret
from gateway.stages import Operation, RawRequest

NOW = datetime(2026, 12, 1, tzinfo=UTC)
KEY = Key(id="k_1", tenant="one", sha256=hash_secret("sk-1"), created=NOW)
EVERYBODY = parse_networks(["0.0.0.0/0"])


def head(secret=b"sk-1", **more):
    headers = [(b"authorization", b"Bearer " + secret), *((name.encode(), value) for name, value in more.items())]
    return Head({"method": "POST", "headers": headers}, keep_alive=True)


def identify(gate, known, peer="10.0.0.1"):
    raw = RawRequest("req_1", Operation.CHAT, known, peer, lambda: b"", None, None, {})
    return gate.identify(AddressGate(EVERYBODY, ()).admit(raw)).key


def gate_of(*keys, now=lambda: NOW):
    holder = SimpleNamespace(ring=KeyRing(keys))
    return KeyGate(holder, now), holder


def test_a_key_is_searched_for_once_for_all_requests_that_begin_alike(monkeypatch):
    searched = []
    find = KeyRing.find
    monkeypatch.setattr(KeyRing, "find", lambda *args: searched.append(args) or find(*args))
    gate, _ = gate_of(KEY)
    known = head()
    assert [identify(gate, known) for _ in range(3)] == [KEY] * 3
    assert len(searched) == 1
    assert identify(gate, head()) is KEY
    assert len(searched) == 2


def test_a_key_that_is_taken_out_of_the_file_is_refused_on_open_connections_too():
    gate, holder = gate_of(KEY)
    known = head()
    assert identify(gate, known) is KEY
    holder.ring = KeyRing(())
    with pytest.raises(InvalidApiKey):
        identify(gate, known)
    holder.ring = KeyRing([replace(KEY, tenant="two")])
    assert identify(gate, known).tenant == "two"


def test_a_key_expires_on_open_connections_too():
    at = [NOW]
    gate, _ = gate_of(replace(KEY, expires=NOW + timedelta(seconds=1)), now=lambda: at[0])
    known = head()
    assert identify(gate, known).id == "k_1"
    at[0] += timedelta(seconds=1)
    with pytest.raises(InvalidApiKey):
        identify(gate, known)


def test_who_was_refused_is_refused_again():
    gate, _ = gate_of(replace(KEY, networks=parse_networks(["192.0.2.0/24"])))
    known, nobody = head(), head(secret=b"sk-2")
    for _ in range(2):
        with pytest.raises(AddressRefused):
            identify(gate, known)
        with pytest.raises(InvalidApiKey):
            identify(gate, nobody)
