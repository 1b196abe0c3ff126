"""Who is calling: the client's address from the peer, `X-Forwarded-For` and the proxies that are trusted.

Pure: no sockets, no settings, no HTTP. Every doubt fails closed, as an `AddressError` that the caller turns into a
refusal. This module does not know what an absent allow-list means: it says that nobody is in an empty one, and the
caller decides whether there is one at all.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Address: TypeAlias = IPv4Address | IPv6Address
Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]

MAX_HOPS = 64
"""Hops looked at per request. Real chains have fewer than ten; the bound keeps a header of commas from costing CPU."""

_MAX_HOP_CHARS = 96
"""Longer than any address with a scope id, brackets and a port (at most 70), so that the cache below stays small."""

_CACHED_ADDRESSES = 4096

_MAPPED_PREFIX_BITS = 96
"""`::ffff:0:0/96` holds IPv4-mapped addresses (RFC 4291, section 2.5.5.2)."""

_V4_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_V6_IN_BRACKETS = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?")


class AddressError(ValueError):
    """The client's address cannot be told. The request must be refused: guessing would let a header choose it."""


def parse_networks(text_items: Iterable[str]) -> Networks:
    """Turn `["10.0.0.0/8", "::1"]` into networks; an address alone is a network of one.

    IPv4-mapped networks (`::ffff:10.0.0.0/104`) become IPv4, as client addresses do. `::/0` holds IPv6 alone:
    "everybody" is `0.0.0.0/0` and `::/0` together.

    Raises:
        ValueError: naming the first item that is no network. Host bits after the prefix are refused rather than
            cleared, because `10.1.2.3/8` is as likely a typing error for `/32` as it is a wish for sixteen million
            addresses.

    """
    return tuple(_parse_network(item.strip()) for item in text_items)


def client_address(peer: str, forwarded_for: Sequence[str], trusted_proxies: Networks) -> Address:
    """Return the rightmost hop that is not a trusted proxy.

    A proxy *appends* the address that it saw, so entries are believed from the right, and only as far as the hop that
    wrote them is trusted. What a client puts into the header itself stays to the left of the entry about the client,
    where the walk never arrives.

    Args:
        peer: the socket's other end, as ASGI's `scope["client"][0]` has it.
        forwarded_for: every `X-Forwarded-For` line in the order received; each may hold several hops.
        trusted_proxies: the networks whose hosts append truthfully. Clients must not live in them: an address in here
            may claim to forward for anyone.

    Returns:
        The peer when it is not trusted or there is no header; otherwise the first untrusted hop from the right; the
        leftmost hop when all are trusted. IPv4-mapped IPv6 comes back as IPv4, and without port or scope id.

    Raises:
        AddressError: the peer or a hop that the walk reached is malformed, or more than `MAX_HOPS` hops are trusted.

    """
    address = _parse_hop(peer)
    if not forwarded_for or not _contains(trusted_proxies, address):
        return address
    for count, hop in enumerate(_hops_from_the_right(forwarded_for), start=1):
        if count > MAX_HOPS:
            msg = f"X-Forwarded-For holds more than {MAX_HOPS} hops of trusted proxies"
            raise AddressError(msg)
        address = _parse_hop(hop)
        if not _contains(trusted_proxies, address):
            return address
    return address


def is_allowed(address: Address, networks: Networks) -> bool:
    """Tell whether one of the networks holds the address. Nobody is in an empty list."""
    return _contains(networks, _unmapped(address))


def _contains(networks: Networks, address: Address) -> bool:
    for network in networks:  # noqa: SIM110 - any() over a generator costs as much again
        if address in network:
            return True
    return False


def _hops_from_the_right(lines: Sequence[str]) -> Iterator[str]:
    for line in reversed(lines):
        # At most one item more than is ever parsed, however many commas a client sends.
        yield from reversed(line.rsplit(",", MAX_HOPS))


def _parse_network(item: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(item)
    except ValueError as exc:
        msg = f"{item!r} is not an IP network: {_network_hint(item)}"
        raise ValueError(msg) from exc
    if isinstance(network, IPv4Network):
        return network
    if "%" in item:
        msg = f"{item!r} is not an IP network: leave out the scope id after %"
        raise ValueError(msg)
    mapped = network.network_address.ipv4_mapped
    if mapped is None or network.prefixlen < _MAPPED_PREFIX_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX_BITS))


def _network_hint(item: str) -> str:
    try:
        meant = ip_network(item, strict=False)
    except ValueError:
        return "write it like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"
    return f"it has bits set after its prefix; did you mean {meant}?"


@lru_cache(maxsize=_CACHED_ADDRESSES)
def _parse_text(text: str) -> Address:
    stripped = text.strip(" \t")
    match = _V6_IN_BRACKETS.fullmatch(stripped)
    if match:
        return _unmapped(IPv6Address(match[1]))
    match = _V4_WITH_PORT.fullmatch(stripped)
    return _unmapped(ip_address(match[1] if match else stripped))


def _parse_hop(text: str) -> Address:
    if len(text) > _MAX_HOP_CHARS:
        msg = f"a hop of {len(text)} characters is not an IP address"
        raise AddressError(msg)
    try:
        return _parse_text(text)
    except ValueError as exc:
        # !r, because the text is the client's: it goes to a log line and must not be able to forge another.
        msg = f"{text!r} is not an IP address"
        raise AddressError(msg) from exc


def _unmapped(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    # A scope id names an interface of the host that wrote it; here it would only make equal addresses differ.
    return address.ipv4_mapped or (IPv6Address(int(address)) if address.scope_id else address)
