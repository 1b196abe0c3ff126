"""Which IP addresses a picture may be fetched from: those of the public Internet. Pure; resolves and connects nothing.

An own table and not `ipaddress.is_global`: that property changed within 3.11 (gh-113171) and counts multicast as
global. Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates). Where the
registry calls a block globally reachable but nobody serves pictures from it (AS112, ORCHIDv2, AMT), it is refused too.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address
AddressPolicy = Callable[[IPAddress], bool]
"""True when the gateway may connect to the address."""

_REFUSED_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # "this network"; Linux connects 0.0.0.0 to loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT; Alibaba's and Volcengine's metadata services live here
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent: a public number, answered inside every Azure VM
        "169.254.0.0/16",  # link local; most clouds' metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF assignments; Oracle's metadata service
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")  # everything IANA has handed out for the public Internet (RFC 4291)
_REFUSED_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # IETF assignments, with Teredo (2001::/32), ORCHID and benchmarking: they wrap other addresses
        "2001:db8::/32",
        "2002::/16",  # 6to4 wraps any IPv4 address
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv6-only cluster sees every IPv4 host through it
_ISATAP_INTERFACE_IDS = frozenset({0x0000_5EFE, 0x0200_5EFE})  # RFC 5214 6.1: the low 32 bits are an IPv4 address


def is_public(address: IPAddress) -> bool:
    """Whether `address` belongs to the public Internet; False for every doubt.

    IPv4 addresses wrapped in IPv6 (mapped `::ffff:0:0/96`, NAT64 `64:ff9b::/96`) are judged by what they wrap, as
    that is where the packet goes. Other wrappings (6to4, Teredo, ISATAP, IPv4-compatible) and zone ids are refused.
    """
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _REFUSED_V4)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP_INTERFACE_IDS:
        return False
    return address in _GLOBAL_UNICAST_V6 and not any(address in block for block in _REFUSED_V6)
