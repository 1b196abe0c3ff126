"""Real servers on loopback. The address policy is opened for 127.0.0.1 only; 127.0.0.2 stands for a private host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from gateway.images import ImageFetcher, ImageRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PICTURE = b"\x89PNG not really, but nobody looks here" * 50


def only_127_0_0_1(address) -> bool:
    return address == ip_address("127.0.0.1")


class Names(AbstractResolver):
    """Answers from a table; each question takes the next answer, the last one stays. Counts questions."""

    def __init__(self, **table: list[list[str]]) -> None:
        self.table = {name.replace("_", "."): answers for name, answers in table.items()}
        self.asked: list[str] = []

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        self.asked.append(host)
        answers = self.table.get(host)
        if answers is None:
            raise OSError(None, "unknown name")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            {"hostname": host, "host": a, "port": port, "family": socket.AF_INET6 if ":" in a else socket.AF_INET, "proto": 0, "flags": 0}
            for a in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        raise AssertionError("not the fetcher's to close")


@dataclass
class Server:
    port: int
    seen: list[web.BaseRequest] = field(default_factory=list)
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None

    def url(self, path: str = "/a.png", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def serving(
    address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(0)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        server.seen.append(request)
        return web.Response(body=PICTURE) if server.answer is None else await server.answer(request)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, address, port, ssl_context=tls)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@pytest.fixture
async def server():
    async with serving() as running:
        yield running


@contextlib.asynccontextmanager
async def raw_server(conversation) -> AsyncIterator[int]:
    """A TCP server that speaks as `conversation(reader, writer)` says; connections it leaves open end with the test."""
    tasks: set[asyncio.Task] = set()

    async def handle(reader, writer) -> None:
        tasks.add(asyncio.current_task())
        try:
            await conversation(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1]
    listener.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def fetcher(hosts=("*",), max_bytes=1 << 20, **more) -> ImageFetcher:
    return ImageFetcher(
        hosts, max_bytes, **({"address_allowed": only_127_0_0_1, "resolver": Names(img_test=[["127.0.0.1"]])} | more)
    )


async def refusal(fetching: ImageFetcher, url: str) -> ImageRefused:
    async with fetching:
        with pytest.raises(ImageRefused) as caught:
            await fetching.fetch(url)
    return caught.value


def answering(status: int = 200, body: bytes = b"", **headers: str):
    async def answer(_request) -> web.Response:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


class TestDownloading:
    async def test_a_picture_arrives_whole(self, server):
        async with fetcher() as fetching:
            assert await fetching.fetch(server.url()) == PICTURE
            assert await fetching.fetch(server.url(host="img.test")) == PICTURE

    async def test_the_host_gets_its_name_and_nothing_of_the_client(self, server):
        async with fetcher() as fetching:
            await fetching.fetch(server.url("/p%2Fq?sig=a%2Bb+c", host="IMG.test"))
        request = server.seen[0]
        assert request.raw_path == "/p%2Fq?sig=a%2Bb+c"
        assert dict(request.headers) == {
            "Host": f"img.test:{server.port}",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "User-Agent": "qwen3-vl-gateway",
        }

    async def test_cookies_are_not_kept(self, server):
        server.answer = answering(body=PICTURE, Set_Cookie="a=b; Path=/")
        async with fetcher() as fetching:
            await fetching.fetch(server.url(host="img.test"))
            await fetching.fetch(server.url(host="img.test"))
        assert "Cookie" not in server.seen[1].headers

    async def test_environment_proxies_are_ignored(self, server, monkeypatch):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        async with fetcher() as fetching:
            assert await fetching.fetch(server.url()) == PICTURE

    async def test_after_closing_it_opens_anew(self, server):
        fetching = fetcher()
        await fetching.aclose()
        assert await fetching.fetch(server.url()) == PICTURE
        await fetching.aclose()
        await fetching.aclose()
        assert await fetching.fetch(server.url()) == PICTURE
        await fetching.aclose()

    async def test_many_at_once(self, server):
        async with fetcher() as fetching:
            bodies = await asyncio.gather(*(fetching.fetch(server.url(f"/{n}", host="img.test")) for n in range(120)))
        assert bodies == [PICTURE] * 120

    @pytest.mark.parametrize("status", [201, 204, 206, 304, 401, 403, 404, 429, 500, 503])
    async def test_anything_but_200_is_refused_with_the_status(self, server, status):
        server.answer = answering(status)
        refused = await refusal(fetcher(), server.url("/a?sig=s3cr3t"))
        assert refused.reason == "fetch_failed"
        assert str(status) in str(refused)
        assert "s3cr3t" not in str(refused)

    async def test_an_empty_body_is_refused(self, server):
        server.answer = answering()
        assert (await refusal(fetcher(), server.url())).reason == "fetch_failed"

    async def test_a_compressed_body_is_refused_not_inflated(self, server):
        server.answer = answering(body=PICTURE, Content_Encoding="gzip")
        refused = await refusal(fetcher(), server.url())
        assert refused.reason == "fetch_failed"
        assert "compressed" in str(refused)

    async def test_identity_is_no_compression(self, server):
        server.answer = answering(body=PICTURE, Content_Encoding="Identity")
        async with fetcher() as fetching:
            assert await fetching.fetch(server.url()) == PICTURE


class TestByteCap:
    async def test_the_cap_is_exact(self, server):
        async with fetcher(max_bytes=len(PICTURE)) as fetching:
            assert await fetching.fetch(server.url()) == PICTURE
        refused = await refusal(fetcher(max_bytes=len(PICTURE) - 1), server.url())
        assert refused.reason == "image_too_large"

    async def test_an_announced_excess_is_refused_unread(self):
        async def announce(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
            await reader.read()

        async with raw_server(announce) as port:
            refused = await refusal(fetcher(), f"http://127.0.0.1:{port}/")
        assert refused.reason == "image_too_large"

    async def test_an_endless_body_is_cut_at_the_cap(self):
        sent = 0

        async def pour(reader, writer):
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                await writer.drain()
                sent += 0x10000

        async with raw_server(pour) as port:
            refused = await refusal(fetcher(max_bytes=1 << 20), f"http://127.0.0.1:{port}/")
        assert refused.reason == "image_too_large"
        assert sent < 32 << 20


class TestFailures:
    async def test_a_silent_server_is_a_timeout(self):
        async def silent(reader, _writer):
            await reader.read()

        async with raw_server(silent) as port:
            refused = await refusal(fetcher(total_timeout_s=0.1), f"http://127.0.0.1:{port}/")
        assert refused.reason == "fetch_timeout"
        assert "0.1 s" in str(refused)

    async def test_a_slow_drip_is_a_timeout_however_lively(self):
        async def drip(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                writer.write(b".")
                await asyncio.sleep(0.01)

        async with raw_server(drip) as port:
            refused = await refusal(fetcher(total_timeout_s=0.2), f"http://127.0.0.1:{port}/")
        assert refused.reason == "fetch_timeout"

    async def test_a_name_server_that_never_answers_is_a_connect_timeout(self):
        class Silent(Names):
            async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
                await asyncio.Event().wait()

        refused = await refusal(fetcher(resolver=Silent(), connect_timeout_s=0.05), "http://img.test/")
        assert refused.reason == "fetch_timeout"
        assert "no connection to img.test within 0.05 s" in str(refused)

    async def test_a_tls_handshake_that_never_ends_is_a_connect_timeout(self):
        async def silent(reader, _writer):
            await reader.read()

        async with raw_server(silent) as port:
            refused = await refusal(fetcher(connect_timeout_s=0.1), f"https://127.0.0.1:{port}/")
        assert refused.reason == "fetch_timeout"

    @pytest.mark.parametrize(
        "answer",
        [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    )  # fmt: skip
    async def test_broken_http_is_a_refusal(self, answer):
        async def speak(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

        async with raw_server(speak) as port:
            refused = await refusal(fetcher(), f"http://127.0.0.1:{port}/")
        assert refused.reason == "fetch_failed"

    async def test_nobody_listening_is_a_refusal(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        assert (await refusal(fetcher(), f"http://127.0.0.1:{port}/")).reason == "fetch_failed"

    @pytest.mark.parametrize("names", [Names(), Names(img_test=[[]])])
    async def test_an_unknown_name_is_a_refusal(self, names):
        refused = await refusal(fetcher(resolver=names), "http://img.test/")
        assert refused.reason == "fetch_failed"
        assert "does not resolve" in str(refused)

    async def test_cancellation_is_not_a_refusal(self):
        reached = asyncio.Event()

        async def silent(reader, _writer):
            reached.set()
            await reader.read()

        async with raw_server(silent) as port, fetcher() as fetching:
            task = asyncio.create_task(fetching.fetch(f"http://127.0.0.1:{port}/"))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


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
