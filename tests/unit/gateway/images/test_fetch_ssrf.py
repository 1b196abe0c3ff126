"""What a URL must not reach: hosts that are not listed, addresses that are not public, hops that lead there, TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess

import pytest
from aiohttp import web

from gateway.images import ImageFetcher, ImageRefused
from tests.unit.gateway.images.servers import PICTURE, Names, answering, fetcher, refusal, serving


@pytest.fixture
async def server():
    async with serving() as running:
        yield running


class TestHosts:
    async def test_an_empty_list_switches_urls_off(self, server):
        refused = await refusal(fetcher(hosts=()), server.url())
        assert refused.reason == "host_not_allowed"
        assert "data: URL" in str(refused)
        assert server.seen == []

    async def test_a_host_that_is_not_listed_is_never_resolved(self):
        names = Names(evil_test=[["127.0.0.1"]])
        refused = await refusal(
            fetcher(hosts=["img.test", "*.cdn.test"], resolver=names), "http://evil.test/?sig=s3cr3t"
        )
        assert refused.reason == "host_not_allowed"
        assert "evil.test" in str(refused)
        assert "s3cr3t" not in str(refused)
        assert names.asked == []

    async def test_wildcards_allow_names_below(self, server):
        names = Names(a_cdn_test=[["127.0.0.1"]])
        async with fetcher(hosts=["*.cdn.test"], resolver=names) as fetching:
            assert await fetching.fetch(server.url(host="a.cdn.test")) == PICTURE


class TestAddresses:
    @pytest.mark.parametrize(
        "addresses",
        [
            ["127.0.0.2"],
            ["127.0.0.1", "127.0.0.2"],
            ["127.0.0.2", "127.0.0.1"],
            ["127.0.0.1", "fd00::1"],
            ["fe80::1%1"],
        ],
    )
    async def test_one_private_address_refuses_the_name(self, server, addresses):
        refused = await refusal(fetcher(resolver=Names(img_test=[addresses])), server.url(host="img.test"))
        assert refused.reason == "private_address"
        assert not any(address in str(refused) for address in addresses)
        assert server.seen == []

    async def test_a_name_is_resolved_once_so_it_cannot_be_rebound(self, server):
        names = Names(img_test=[["127.0.0.1"], ["127.0.0.2"]])
        async with fetcher(resolver=names) as fetching:
            assert await fetching.fetch(server.url(host="img.test")) == PICTURE
        assert names.asked == ["img.test"]

    async def test_a_rebound_name_is_checked_again_on_a_new_connection(self, server):
        names = Names(img_test=[["127.0.0.1"], ["127.0.0.2"]])
        server.answer = answering(body=PICTURE, Connection="close")
        async with fetcher(resolver=names) as fetching:
            assert await fetching.fetch(server.url(host="img.test")) == PICTURE
            with pytest.raises(ImageRefused) as caught:
                await fetching.fetch(server.url(host="img.test"))
        assert caught.value.reason == "private_address"

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
         "[2001:0:7f00:1::]", "[::127.0.0.1]", "0.0.0.0", "[::]", "2130706433", "0x7f000001", "017700000001", "127.1", "0177.0.0.1",
         "127.0.0.1.", "localhost.", "127。0。0。1", "１２７.0.0.1", "u@127.0.0.1", "example.com@127.0.0.1", "127.0.0.1\\.example.com",
         "169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "[fe80::1%25lo]"],
    )  # fmt: skip
    async def test_no_notation_reaches_this_machine(self, server, host):
        """With the defaults: the system's resolver and the real address policy."""
        refused = await refusal(ImageFetcher(["*"], 1 << 20), server.url(host=host))
        assert refused.reason in {"private_address", "invalid_url"}
        assert server.seen == []


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_three_hops_are_followed_and_no_more(self, server, status):
        async def answer(request):
            left = int(request.path[1:])
            if left:
                return web.Response(status=status, headers={"Location": str(left - 1)}, body=b"moved")
            return web.Response(body=PICTURE)

        server.answer = answer
        async with fetcher() as fetching:
            assert await fetching.fetch(server.url("/3")) == PICTURE
            assert len(server.seen) == 4
            with pytest.raises(ImageRefused, match="more than 3 times") as caught:
                await fetching.fetch(server.url("/4"))
        assert caught.value.reason == "too_many_redirects"

    async def test_a_hop_to_a_private_address_is_not_taken(self, server):
        async with serving("127.0.0.2", server.port) as private:
            for location in (
                private.url(host="127.0.0.2"),
                private.url(host="inner.test"),
                f"//127.0.0.2:{server.port}/",
            ):
                server.answer = answering(302, Location=location)
                names = Names(inner_test=[["127.0.0.2"]])
                refused = await refusal(fetcher(resolver=names), server.url())
                assert refused.reason == "private_address"
        assert private.seen == []

    async def test_a_hop_to_another_host_needs_the_list_too(self, server):
        server.answer = answering(302, Location=server.url(host="other.test"))
        refused = await refusal(fetcher(hosts=["img.test"]), server.url(host="img.test"))
        assert refused.reason == "host_not_allowed"

    @pytest.mark.parametrize(
        "location",
        ["file:///etc/passwd", "http://u:p@127.0.0.1/", "http://2130706433/", "data:image/png;base64,AAAA", "//a\\b"],
    )
    async def test_a_hop_is_parsed_as_strictly(self, server, location):
        server.answer = answering(302, Location=location)
        assert (await refusal(fetcher(), server.url())).reason == "invalid_url"

    async def test_a_redirect_to_nowhere_is_a_failure(self, server):
        server.answer = answering(302)
        assert (await refusal(fetcher(), server.url())).reason == "fetch_failed"

    async def test_hops_share_one_deadline(self, server):
        async def answer(_request):
            await asyncio.sleep(0.06)
            return web.Response(status=302, headers={"Location": "/next"})

        server.answer = answer
        refused = await refusal(fetcher(total_timeout_s=0.15, max_redirects=50), server.url())
        assert refused.reason == "fetch_timeout"


@pytest.fixture
def certificate(tmp_path):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=img.test",
               "-addext", "subjectAltName=DNS:img.test", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.fail("openssl is missing: apt-get install openssl")
    return tmp_path


class TestTls:
    async def test_the_name_is_asked_for_and_verified_though_an_address_is_connected_to(self, certificate):
        asked = []
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        tls.sni_callback = lambda _socket, name, _context: asked.append(name)
        trusting = ssl.create_default_context(cafile=certificate / "cert.pem")
        async with serving(tls=tls) as server:
            async with fetcher(ssl_context=trusting) as fetching:
                assert await fetching.fetch(server.url(host="img.test", scheme="https")) == PICTURE
            assert asked == ["img.test"]
            by_address = await refusal(fetcher(ssl_context=trusting), server.url(scheme="https"))
            unknown_issuer = await refusal(fetcher(), server.url(host="img.test", scheme="https"))
        for refused in (by_address, unknown_issuer):
            assert refused.reason == "fetch_failed"
            assert "TLS" in str(refused)

    async def test_tls_to_a_plain_server_is_a_refusal(self, server):
        refused = await refusal(fetcher(), server.url(scheme="https"))
        assert refused.reason == "fetch_failed"
