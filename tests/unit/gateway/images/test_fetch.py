"""Downloading over real sockets: what is sent, how much is read, and how each failure is told."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.unit.gateway.images.servers import PICTURE, Names, answering, fetcher, raw_server, refusal, serving


@pytest.fixture
async def server():
    async with serving() as running:
        yield running


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
