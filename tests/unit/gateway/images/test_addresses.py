from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.images.addresses import is_public

PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "223.255.255.255",
          "168.63.129.15", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "2400:3200::1"]  # fmt: skip
NOT_PUBLIC = [
    "0.0.0.0", "0.255.255.255", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.96.0.96", "100.100.100.200",
    "127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.192",
    "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.0", "198.19.255.255", "198.51.100.7", "203.0.113.9",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::8.8.8.8", "fe80::1", "fe80::1%eth0", "2606:4700:4700::1111%1", "fc00::1",
    "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "64:ff9b:1::8.8.8.8", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1", "2002:808:808::1", "2002:7f00:1::", "3fff::1", "5f00::1", "4000::1",
    "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_the_public_internet_is_allowed(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_every_special_block_is_refused(text):
    assert not is_public(ip_address(text))


@given(st.ip_addresses(v=4))
def test_ipv4_wrapped_in_ipv6_is_judged_as_what_it_wraps(address: IPv4Address):
    assert is_public(IPv6Address(f"::ffff:{address}")) == is_public(address)
    assert is_public(IPv6Address(f"64:ff9b::{address}")) == is_public(address)


@given(st.ip_addresses(v=4))
def test_other_wrappings_are_never_public(address: IPv4Address):
    for wrapped in (int(address), (0x2002 << 112) | (int(address) << 80), (0x2001 << 112) | int(address)):
        assert not is_public(IPv6Address(wrapped))


@given(st.ip_addresses())
def test_nothing_that_python_knows_as_special_is_public(address: IPv4Address | IPv6Address):
    special = (
        address.is_private,
        address.is_loopback,
        address.is_link_local,
        address.is_multicast,
        address.is_reserved,
        address.is_unspecified,
    )
    if any(special):
        mapped = isinstance(address, IPv6Address) and (address.ipv4_mapped or int(address) >> 32 == 0x64FF9B << 64)
        assert mapped or not is_public(address)
