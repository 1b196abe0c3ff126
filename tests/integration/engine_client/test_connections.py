"""What becomes of connections: used again, or never; closed when nobody waits; not one left over."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess

import psutil
import pytest

from gateway.errors import EngineMisbehaved
from gateway.upstream import client as seam
from gateway.upstream.client import EngineUnreachable
from gateway.upstream.http1 import Http1Client, pool
from gateway.upstream.http1.connection import UNREAD_BYTES
from tests.support.raw_server import raw_server, says
from tests.support.verdicts import UNREACHABLE, verdict
from tests.support.waiting import until

OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"Content-Length: 2\r\n\r\nhi"
GREETING = (200, b"application/octet-stream", b"hi")

own_only = pytest.mark.parametrize("make_client", ["http1"], indirect=True)


def sockets():
    return len(psutil.Process().net_connections())


@pytest.fixture(autouse=True)
async def no_socket_is_left():
    before = sockets()
    yield
    await until(lambda: sockets() <= before)


class TestReuse:
    async def test_connections_are_as_many_as_requests_at_once(self, client):
        async with raw_server(says(HI)) as server:
            for _ in range(3):
                assert await asyncio.gather(*(verdict(client, server.url) for _ in range(4))) == [GREETING] * 4
        assert server.connections == 4

    @own_only
    async def test_the_one_used_last_is_used_next(self, client):
        used = []

        async def script(talk):
            while True:
                await talk.request()
                used.append(talk.number)
                await talk.say(HI)

        async with raw_server(script) as server:
            await asyncio.gather(verdict(client, server.url), verdict(client, server.url))
            for _ in range(5):
                await verdict(client, server.url)
        assert len(set(used[1:])) == 1

    @pytest.mark.parametrize(
        "raw",
        [
            OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            HI + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            HI + b"H",
            HI + b"\0",
        ],
        ids=["close", "http-1.0", "a-second-answer", "the-start-of-one", "garbage"],
    )
    async def test_a_connection_that_cannot_be_trusted_is_closed(self, make_client, raw):
        async def script(talk):
            await talk.request()
            await talk.say(raw)
            await talk.until_left()

        async with raw_server(script) as server:
            for number in (1, 2):
                client = make_client()
                # With a second answer in the same segment, the reference throws the first away too.
                assert await verdict(client, server.url) in (
                    {GREETING} if "Http1" in repr(client) else {GREETING, UNREACHABLE}
                )
                await client.aclose()
                await until(lambda n=number: server.left == n)

    @own_only
    async def test_what_comes_unasked_is_nobodys_answer(self, client):
        async def script(talk):
            await talk.request()
            await talk.say(HI)
            if talk.number == 0:
                await go_on.wait()
                await talk.say(OK + b"Content-Length: 4\r\n\r\nevil")
                await talk.until_left()
            else:
                await talk.request()

        go_on = asyncio.Event()
        async with raw_server(script) as server:
            assert await verdict(client, server.url) == GREETING
            go_on.set()
            await until(lambda: server.left == 1)
            assert await verdict(client, server.url) == GREETING
            assert server.connections == 2

    @own_only
    async def test_an_idle_connection_is_closed_before_vllm_does(self, client, monkeypatch):
        assert seam.KEEP_ALIVE_S < 5
        monkeypatch.setattr(pool, "KEEP_ALIVE_S", 0.05)
        async with raw_server(says(HI)) as server:
            await asyncio.gather(*(verdict(client, server.url) for _ in range(3)))
            await until(lambda: server.left == 3)
            assert await verdict(client, server.url) == GREETING

    @own_only
    async def test_an_old_connection_is_not_used_even_if_it_is_still_open(self, client, monkeypatch):
        async with raw_server(says(HI)) as server:
            assert await verdict(client, server.url) == GREETING
            monkeypatch.setattr(pool, "KEEP_ALIVE_S", -1.0)
            assert await verdict(client, server.url) == GREETING
            assert server.connections == 2


class TestStaleConnections:
    @own_only
    @pytest.mark.parametrize("body", [None, b"{}", b"x" * 3_000_000])
    async def test_a_request_on_one_goes_once_more_over_a_new_one(self, client, body):
        async def script(talk):
            await talk.request()
            if talk.number == 1 or len(talk.requests) == 1:
                await talk.say(HI)
            if talk.number == 0:
                await talk.request()  # the second request is read, and never answered
            else:
                await talk.until_left()

        async with raw_server(script) as server:
            for _ in range(2):
                assert await verdict(client, server.url, method="POST" if body else "GET", body=body) == GREETING
        assert server.connections == 2
        assert len(server.requests) == 3

    @own_only
    async def test_but_only_once(self, client):
        async def script(talk):
            await talk.request()
            if talk.number == 0:
                await talk.say(HI)
                await talk.request()

        async with raw_server(script) as server:
            assert await verdict(client, server.url) == GREETING
            assert await verdict(client, server.url) == UNREACHABLE
        assert server.connections == 2

    @own_only
    async def test_and_not_when_an_answer_had_begun(self, client):
        async def script(talk):
            await talk.request()
            await talk.say(HI)
            await talk.request()
            await talk.say(b"HTTP/1.1 20")

        async with raw_server(script) as server:
            assert await verdict(client, server.url) == GREETING
            assert await verdict(client, server.url) == UNREACHABLE
        assert server.connections == 1

    async def test_a_new_connection_that_is_closed_is_no_case_for_a_second_try(self, client):
        async with raw_server(says(close=True)) as server:
            with pytest.raises(EngineUnreachable) as raised:
                await client.send("POST", server.url, {}, b"{}")
        assert raised.value.cause == "closed"
        assert server.connections == 1


class TestConnecting:
    async def test_a_closed_port_is_said_to_be_one(self, client):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(EngineUnreachable) as raised:
                await client.send("GET", f"http://127.0.0.1:{unused.getsockname()[1]}", {}, None)
        assert raised.value.cause == "connect"

    async def test_a_port_that_never_answers_is_given_up(self, make_client):
        client = make_client(connect_timeout_s=0.1)
        with contextlib.ExitStack() as held:
            full = held.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):  # Linux takes one more than it was told
                waiting = held.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            with pytest.raises(EngineUnreachable) as raised:
                await client.send("GET", f"http://127.0.0.1:{full.getsockname()[1]}", {}, None)
        assert raised.value.cause == "connect"
        await client.aclose()

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    async def test_the_request_is_as_http_wants_it(self, client, host):
        async with raw_server(says(HI), host=host) as server:
            assert await verdict(client, server.url + "/v1/x?y=%20") == GREETING
        head, body = server.requests[0].split(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        assert head.startswith(b"POST /v1/x?y=%20 HTTP/1.1\r\n")
        assert b"host: " + server.url.removeprefix("http://").encode() in lines
        assert b"content-length: 2" in lines
        assert body == b"{}"

    async def test_https_is_spoken_to_whom_is_trusted(self, make_client, certificate, monkeypatch):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        async with raw_server(says(HI), tls=context) as server:
            stranger = make_client()
            assert await verdict(stranger, server.url) == UNREACHABLE
            await stranger.aclose()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client = Http1Client(connect_timeout_s=5, idle_timeout_s=5)
        big = bytes(range(256)) * 4096
        async with raw_server(says(OK + b"Content-Length: %d\r\n\r\n" % len(big), big), tls=context) as server:
            for _ in range(2):
                assert await verdict(client, server.url, body=big) == (200, GREETING[1], big)
            await client.aclose()
        assert server.connections == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "one.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path)]
    subprocess.run([*command, "-out", f"{path}.cert"], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".pem.cert").read_text())
    return path


class TestLeaving:
    @pytest.mark.parametrize(
        "raw",
        [b"", b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"Content-Le"],
        ids=["before-a-byte", "after-an-interim-answer", "in-the-head"],
    )
    async def test_who_no_longer_waits_closes_the_connection(self, client, raw):
        async def script(talk):
            await talk.request()
            await talk.say(raw)
            waits.set()
            await talk.until_left()

        waits = asyncio.Event()
        async with raw_server(script) as server:
            asking = asyncio.ensure_future(client.send("POST", server.url, {}, b"{}"))
            await waits.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: server.left == 1)

    async def test_one_may_leave_while_connecting(self, client):
        async with raw_server(says(HI)) as server:
            for turns in range(12):
                asking = asyncio.ensure_future(client.send("POST", server.url, {}, b"{}"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                if not asking.cancelled():
                    asking.result().close()
            assert await verdict(client, server.url) == GREETING

    @pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "closed"])
    async def test_who_leaves_in_the_body_closes_the_connection(self, client, cancelled):
        async def script(talk):
            await talk.request()
            await talk.say(OK + b"Content-Length: 9\r\n\r\nhello")
            await talk.until_left()

        async with raw_server(script) as server:
            response = await client.send("POST", server.url, {}, b"{}")
            chunks = response.chunks()
            assert await anext(chunks) == b"hello"
            if cancelled:
                reading = asyncio.ensure_future(anext(chunks))
                await asyncio.sleep(0)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            response.close()
            await until(lambda: server.left == 1)

    @own_only
    async def test_a_complete_answer_that_nobody_reads_holds_nothing(self, client):
        async with raw_server(says(HI)) as server:
            for _ in range(3):
                response = await client.send("POST", server.url, {}, b"{}")
                response.close()
        assert server.connections == 1

    @own_only
    async def test_closing_the_client_ends_what_is_under_way(self, client):
        async def script(talk):
            await talk.request()
            await talk.say(HI if talk.number == 0 else OK + b"Content-Length: 9\r\n\r\nhello")
            await talk.request()

        async with raw_server(script) as server:
            idle, half = await asyncio.gather(*(client.send("POST", server.url, {}, b"{}") for _ in range(2)))
            assert server.connections == 2
            await client.aclose()
            await until(lambda: server.left == 2)
            # Which of the two was first is the sockets' business.
            results = await asyncio.gather(idle.read(), half.read(), return_exceptions=True)
            assert {type(result) for result in results} == {bytes, EngineMisbehaved}
        with pytest.raises(RuntimeError, match="closed"):
            await client.send("GET", server.url, {}, None)
        await client.aclose()


class TestPressure:
    async def test_an_engine_waits_for_a_client_that_does_not_read(self, client):
        total = 64 * 1024 * 1024
        sent = 0

        async def script(talk):
            nonlocal sent
            await talk.request()
            talk.writer.write(OK + b"Content-Length: %d\r\n\r\n" % total)
            while sent < total:
                talk.writer.write(bytes(65536))
                await talk.writer.drain()
                sent += 65536

        async with raw_server(script) as server:
            response = await client.send("POST", server.url, {}, b"{}")
            seen = -1
            while seen != sent:
                seen = sent
                await asyncio.sleep(0.1)
            assert seen < total / 2  # the sockets' buffers, and ours
            got = 0
            async for chunk in response.chunks():
                got += len(chunk)
            assert got == total

    @own_only
    async def test_a_sink_that_asks_for_a_pause_stops_the_engine_and_loses_nothing(self, client):
        body = bytes(i % 251 for i in range(64 * UNREAD_BYTES))
        allowed = asyncio.Event()
        got = bytearray()

        def sink(piece):
            got.extend(piece)
            return allowed.wait() if len(got) < len(body) and not allowed.is_set() else None

        async with raw_server(says(OK + b"Content-Length: %d\r\n\r\n" % len(body), body)) as server:
            response = await client.send("POST", server.url, {}, b"{}")
            pouring = asyncio.ensure_future(response.pour(sink))
            seen = -1
            while seen != response.unread_bytes or not seen:
                seen = response.unread_bytes
                await asyncio.sleep(0.1)
            assert len(got) + seen < len(body) / 2
            allowed.set()
            await pouring
        assert bytes(got) == body

    @own_only
    async def test_a_sink_that_fails_fails_its_reader_and_not_the_connection(self, client):
        async def script(talk):
            await talk.request()
            await talk.say(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            await go_on.wait()
            await talk.say(b"5\r\nhello\r\n0\r\n\r\n")
            await talk.request()
            await talk.say(HI)

        def sink(_piece):
            raise ZeroDivisionError

        go_on = asyncio.Event()
        async with raw_server(script) as server:
            response = await client.send("POST", server.url, {}, b"{}")
            pouring = asyncio.ensure_future(response.pour(sink))
            await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(ZeroDivisionError):
                await pouring
            response.close()
            assert await verdict(client, server.url) == GREETING
        assert server.connections == 1

    @own_only
    async def test_who_leaves_while_it_is_poured_gets_no_more(self, client):
        async def script(talk):
            await talk.request()
            await talk.say(OK + b"Content-Length: 9\r\n\r\nhello")
            await talk.until_left()

        got = []
        async with raw_server(script) as server:
            response = await client.send("POST", server.url, {}, b"{}")
            pouring = asyncio.ensure_future(response.pour(got.append))
            await until(lambda: got == [b"hello"])
            pouring.cancel()
            await asyncio.gather(pouring, return_exceptions=True)
            response.close()
            await until(lambda: server.left == 1)

    @own_only
    async def test_a_reader_that_pauses_is_no_silence_of_the_engine(self, make_client):
        client = make_client(idle_timeout_s=0.2)
        body = bytes(16 * UNREAD_BYTES)
        async with raw_server(says(OK + b"Content-Length: %d\r\n\r\n" % len(body), body)) as server:
            response = await client.send("POST", server.url, {}, b"{}")
            await asyncio.sleep(0.5)
            assert await response.read() == body
        await client.aclose()

    @pytest.mark.parametrize("size", [100_000, 900_000])
    async def test_a_large_request_arrives_whole_at_a_slow_engine(self, client, size):
        body = bytes(i % 251 for i in range(size))

        async def script(talk):
            while True:
                await asyncio.sleep(0.05)
                await talk.request()
                await talk.say(HI)

        async with raw_server(script) as server:
            for _ in range(2):
                assert await verdict(client, server.url, body=body) == GREETING
        assert all(request.endswith(body) for request in server.requests)
        assert server.connections == 1

    @own_only
    async def test_an_engine_that_does_not_read_the_request_is_given_up(self, make_client):
        client = make_client(idle_timeout_s=0.2)
        never = asyncio.Event()

        async def script(_):
            await never.wait()

        async with raw_server(script) as server:
            assert await verdict(client, server.url, body=bytes(50_000_000)) == "stalled"
        await client.aclose()

    @own_only
    async def test_an_answer_to_half_a_request_is_given_but_its_connection_not_used_again(self, client):
        async def script(talk):
            await talk.reader.readuntil(b"\r\n\r\n")
            await talk.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await never.wait()

        never = asyncio.Event()
        async with raw_server(script) as server:
            for _ in range(2):
                assert await verdict(client, server.url, body=bytes(50_000_000)) == (413, GREETING[1], b"no")
            assert server.connections == 2
            never.set()
