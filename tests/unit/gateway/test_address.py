"""The client's address: no header lets a client choose it, and every doubt is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.address import MAX_HOPS, AddressError, client_address, is_allowed, parse_networks

PROXIES = parse_networks(["10.0.0.0/8", "fd00::/8", "192.0.2.7"])

trusted = st.one_of(
    st.ip_addresses(v=4, network="10.0.0.0/8"),
    st.ip_addresses(v=6, network="fd00::/8"),
    st.just(ip_address("192.0.2.7")),
    st.just(ip_address("::ffff:10.1.2.3")),
)
untrusted = st.one_of(
    st.ip_addresses(v=4).filter(lambda address: not is_allowed(address, PROXIES)),
    st.ip_addresses(v=6).filter(lambda address: not is_allowed(address, PROXIES)),
)
whatever_a_client_sends = st.lists(
    st.one_of(
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40),
        st.lists(st.one_of(trusted, untrusted).map(str), max_size=5).map(", ".join),
        st.just("," * 100),
    ),
    max_size=4,
)


def plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


class TestSpoofing:
    @given(claims=whatever_a_client_sends, client=untrusted, proxy=trusted)
    @example(claims=["1.1.1.1"], client=ip_address("8.8.8.8"), proxy=ip_address("10.0.0.1"))
    @example(claims=["garbage,", ""], client=ip_address("8.8.8.8"), proxy=ip_address("10.0.0.1"))
    def test_no_header_changes_the_address_that_a_trusted_proxy_appends_to_the_last_line(self, claims, client, proxy):
        lines = [*claims[:-1], f"{claims[-1]}, {client}"] if claims else [str(client)]

        assert client_address(str(proxy), lines, PROXIES) == plain(client)

    @given(claims=whatever_a_client_sends, client=untrusted, proxy=trusted)
    def test_no_header_changes_the_address_that_a_trusted_proxy_puts_in_a_line_of_its_own(self, claims, client, proxy):
        assert client_address(str(proxy), [*claims, str(client)], PROXIES) == plain(client)

    @given(claims=whatever_a_client_sends, client=untrusted, chain=st.lists(trusted, min_size=1, max_size=6))
    def test_no_header_changes_the_address_behind_a_chain_of_trusted_proxies(self, claims, client, chain):
        lines = [*claims, ", ".join(str(hop) for hop in [client, *chain[:-1]])]

        assert client_address(str(chain[-1]), lines, PROXIES) == plain(client)

    @given(claims=whatever_a_client_sends, client=untrusted)
    def test_no_header_changes_the_address_of_a_client_that_connects_itself(self, claims, client):
        assert client_address(str(client), claims, PROXIES) == plain(client)

    @given(claims=whatever_a_client_sends, client=st.one_of(trusted, untrusted))
    def test_without_trusted_proxies_the_header_is_ignored(self, claims, client):
        assert client_address(str(client), claims, ()) == plain(client)

    def test_an_untrusted_proxy_is_itself_the_client(self):
        assert client_address("10.0.0.1", ["1.1.1.1, 203.0.113.9"], PROXIES) == ip_address("203.0.113.9")


class TestWalk:
    @given(peer=st.text(max_size=120), lines=st.lists(st.text(max_size=120), max_size=4))
    def test_any_text_gives_an_address_or_an_address_error(self, peer, lines):
        try:
            address = client_address(peer, lines, PROXIES)
        except AddressError:
            return
        assert isinstance(address, IPv4Address | IPv6Address)

    def test_without_a_header_the_peer_is_the_client_even_when_it_is_a_proxy(self):
        assert client_address("10.0.0.1", [], PROXIES) == ip_address("10.0.0.1")

    def test_when_all_hops_are_trusted_the_leftmost_is_the_client(self):
        assert client_address("10.0.0.1", ["10.0.0.5, 10.0.0.4", "10.0.0.3"], PROXIES) == ip_address("10.0.0.5")

    @pytest.mark.parametrize(
        "hop",
        ["", "unknown", "unix:", "1.2.3", "1.2.3.4.5", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "[::1",
         "[1.2.3.4]:80", "::1]:80", "010.1.1.1", "1.2.3.4%eth0", "fe80::1%", "1.2.3.4;x", "١.2.3.4", "1" * 97,
         "2001:db8::1:::"],
    )  # fmt: skip
    def test_a_malformed_hop_that_the_walk_reaches_is_refused(self, hop):
        with pytest.raises(AddressError):
            client_address("10.0.0.1", [f"8.8.8.8, {hop}"], PROXIES)
        with pytest.raises(AddressError):
            client_address("10.0.0.1", [f"8.8.8.8, {hop}, 10.0.0.2"], PROXIES)
        with pytest.raises(AddressError):
            client_address(hop, [], PROXIES)

    def test_a_malformed_hop_beyond_the_client_is_never_read(self):
        assert client_address("10.0.0.1", ["<script>, 8.8.8.8, 10.0.0.2"], PROXIES) == ip_address("8.8.8.8")

    def test_the_last_allowed_number_of_hops_is_walked_and_one_more_is_refused(self):
        proxies = ", ".join(["10.0.0.9"] * (MAX_HOPS - 1))

        assert client_address("10.0.0.1", [f"8.8.8.8, {proxies}"], PROXIES) == ip_address("8.8.8.8")
        with pytest.raises(AddressError, match=f"more than {MAX_HOPS} hops"):
            client_address("10.0.0.1", [f"8.8.8.8, 10.0.0.9, {proxies}"], PROXIES)
        with pytest.raises(AddressError, match=f"more than {MAX_HOPS} hops"):
            client_address("10.0.0.1", ["10.0.0.9"] * (MAX_HOPS + 1), PROXIES)

    def test_a_line_break_in_a_hop_cannot_forge_a_log_line(self):
        with pytest.raises(AddressError) as error:
            client_address("1.2.3.4\nroot logged in", [], PROXIES)

        assert "\n" not in str(error.value)


class TestSpelling:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("1.2.3.4:5678", "1.2.3.4"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:443", "fe80::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:1.2.3.4]:80", "1.2.3.4"),
            ("::ffff:102:304", "1.2.3.4"),
            ("\t1.2.3.4 ", "1.2.3.4"),
        ],
    )
    def test_each_spelling_of_an_address_is_the_same_client(self, text, expected):
        assert str(client_address(text, [], ())) == expected
        assert str(client_address("10.0.0.1", [text], PROXIES)) == expected


class TestNetworks:
    @given(address=st.ip_addresses(v=4), prefix=st.integers(0, 32))
    def test_a_mapped_network_holds_the_same_clients_as_its_ipv4_form(self, address, prefix):
        network = ip_network((address, prefix), strict=False)

        assert parse_networks([f"::ffff:{network.network_address}/{96 + prefix}"]) == (network,)

    @given(address=st.ip_addresses(v=4))
    def test_a_mapped_address_is_found_in_an_ipv4_network(self, address):
        network = (IPv4Network((address, 32)),)

        assert is_allowed(IPv6Address(f"::ffff:{address}"), network)
        assert is_allowed(client_address(f"::ffff:{address}", [], ()), network)

    def test_an_address_alone_is_a_network_of_one(self):
        networks = parse_networks([" 192.0.2.7 ", "2001:db8::1"])

        assert is_allowed(ip_address("192.0.2.7"), networks)
        assert is_allowed(ip_address("2001:db8::1"), networks)
        assert not is_allowed(ip_address("192.0.2.8"), networks)

    def test_nobody_is_in_an_empty_list(self):
        assert not is_allowed(ip_address("127.0.0.1"), ())

    def test_every_ipv6_address_is_not_every_ipv4_address(self):
        assert not is_allowed(ip_address("1.2.3.4"), parse_networks(["::/0"]))
        assert is_allowed(ip_address("1.2.3.4"), parse_networks(["::/0", "0.0.0.0/0"]))

    @pytest.mark.parametrize(
        "item", ["", "all", "10.0.0.0/33", "10.0.0", "::/129", "fe80::%eth0/64", "*", "10.0.0.0/8,"]
    )
    def test_what_is_no_network_is_refused_by_name(self, item):
        with pytest.raises(ValueError, match="is not an IP network") as error:
            parse_networks(["10.0.0.0/8", item])

        assert repr(item) in str(error.value)

    def test_bits_after_the_prefix_are_refused_with_what_was_probably_meant(self):
        with pytest.raises(ValueError, match=r"'10\.1\.2\.3/8'.*did you mean 10\.0\.0\.0/8\?"):
            parse_networks(["10.1.2.3/8"])
