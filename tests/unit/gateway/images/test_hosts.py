from __future__ import annotations

import pytest

from gateway.images.hosts import HostAllowList


def test_an_empty_list_allows_nothing():
    hosts = HostAllowList([])
    assert not hosts
    assert not hosts.allows("example.com")


def test_a_star_allows_everything():
    hosts = HostAllowList(["*"])
    assert hosts
    assert hosts.allows("example.com")
    assert hosts.allows("8.8.8.8")


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("img.example.com", ["img.example.com"], ["example.com", "a.img.example.com", "img.example.com.evil.net"]),
        ("*.example.com", ["a.example.com", "a.b.example.com"], ["example.com", "evilexample.com", "example.com.evil.net"]),
        (" IMG.Example.com ", ["img.example.com"], ["img.example.org"]),
        ("8.8.8.8", ["8.8.8.8"], ["8.8.8.80", "8.8.8.9"]),
        ("[2606:4700:0:0::1111]", ["2606:4700::1111"], ["2606:4700::1112"]),
        ("::1", ["::1"], ["::2"]),
    ],
)  # fmt: skip
def test_patterns_match_whole_names(pattern, allowed, refused):
    hosts = HostAllowList([pattern])
    assert hosts
    assert all(hosts.allows(host) for host in allowed)
    assert not any(hosts.allows(host) for host in refused)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "https://example.com",
        "example.com/a",
        "a.*.com",
        "*example.com",
        "example.com:443",
        "a..b",
        ".a",
        "a b",
        "**",
    ],
)
def test_a_malformed_pattern_fails_at_start(pattern):
    with pytest.raises(ValueError, match=r"does not appear|is not a host name"):
        HostAllowList([pattern])
