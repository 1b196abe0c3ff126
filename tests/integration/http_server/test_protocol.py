"""What a client of any HTTP/1.1 server relies on: the same for the gateway's protocol and for uvicorn's."""

from __future__ import annotations

import asyncio
import logging

from tests.integration.http_server.conftest import served

TEXT = [(b"content-type", b"text/plain")]


async def whole_body(receive):
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


async def respond(send, body, *, status=200, headers=()):
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*TEXT, *length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope, receive, send):
    """Method, path, query and body."""
    body = await whole_body(receive)
    line = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode()
    await respond(send, line + body)


POST = "POST /a?b=c HTTP/1.1\nhost: x\ncontent-length: 5\n\nhello"


async def test_a_connection_carries_one_request_after_the_other(http):
    async with served(echo, http) as (app, connect, _):
        client = await connect()
        for _ in range(3):
            client.send(POST)
            status, headers, body = await client.answer()
            assert (status, body) == (200, b"POST /a b=c hello")
            assert "connection" not in headers
            assert "date" in headers
        assert app.scopes[0]["client"][0] == "127.0.0.1"


async def test_requests_sent_ahead_are_answered_in_their_order(http):
    release = asyncio.Event()

    async def slow_first(scope, receive, send):
        if scope["path"] == "/0":
            await release.wait()
        await echo(scope, receive, send)

    async with served(slow_first, http) as (app, connect, _):
        client = await connect()
        client.send("".join(f"POST /{n} HTTP/1.1\nhost: x\ncontent-length: 1\n\n{n}" for n in range(4)))
        while not app.scopes:
            await asyncio.sleep(0.001)
        release.set()
        for n in range(4):
            assert (await client.answer())[2] == f"POST /{n}  {n}".encode()


async def test_a_request_may_come_byte_by_byte(http):
    async with served(echo, http) as (_, connect, _):
        client = await connect()
        for byte in POST.replace("\n", "\r\n"):
            client.send(byte.encode())
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.answer())[2] == b"POST /a b=c hello"


async def test_a_chunked_request_is_put_together(http):
    async with served(echo, http) as (_, connect, _):
        client = await connect()
        client.send("POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\n3\nabc\n2;ext=1\nde\n0\ntrailer: x\n\n")
        assert (await client.answer())[2] == b"POST /  abcde"


async def test_a_path_is_unquoted_and_an_absolute_target_taken_apart(http):
    async with served(echo, http) as (app, connect, _):
        client = await connect()
        client.send("GET /a%20b/%C3%A9?q=%20 HTTP/1.1\nhost: x\n\n")
        await client.answer()
        client.send("GET http://proxied.example/c?d HTTP/1.1\nhost: x\n\n")
        await client.answer()
        assert [scope["path"] for scope in app.scopes] == ["/a b/é", "/c"]
        assert [scope["query_string"] for scope in app.scopes] == [b"q=%20", b"d"]


async def test_an_answer_without_a_length_is_chunked_and_comes_piece_by_piece(http):
    seen = asyncio.Event()

    async def stream(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": TEXT})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await seen.wait()
        await send({"type": "http.response.body", "body": b"second", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with served(stream, http) as (_, connect, _):
        client = await connect()
        client.send("GET / HTTP/1.1\nhost: x\n\n")
        async with asyncio.timeout(5):
            assert b"first" in await client.reader.readuntil(b"first\r\n")
            seen.set()
            assert await client.reader.readuntil(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"
        client.send("GET / HTTP/1.1\nhost: x\n\n")
        assert (await client.answer())[2] == b"firstsecond"


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(http):
    async with served(echo, http) as (_, connect, _):
        client = await connect()
        client.send("POST / HTTP/1.1\nhost: x\ncontent-length: 5\nexpect: 100-continue\n\n")
        assert (await client.answer())[0] == 100
        client.send("hello")
        assert (await client.answer())[2] == b"POST /  hello"


async def test_it_is_not_asked_when_the_answer_needs_no_body(http):
    async def refuse(scope, receive, send):
        await respond(send, b"no", status=401)

    async with served(refuse, http) as (_, connect, _):
        client = await connect()
        client.send("POST / HTTP/1.1\nhost: x\ncontent-length: 5\nexpect: 100-continue\n\n")
        assert (await client.answer())[0] == 401


async def test_an_answer_before_the_body_s_end_does_not_break_the_connection(http):
    async def refuse(scope, receive, send):
        await respond(send, scope["path"].encode(), status=413)

    async with served(refuse, http) as (_, connect, _):
        client = await connect()
        client.send("POST /1 HTTP/1.1\nhost: x\ncontent-length: 1000000\n\n")
        assert (await client.answer())[2] == b"/1"
        client.send(b"x" * 1_000_000)
        client.send("POST /2 HTTP/1.1\nhost: x\ncontent-length: 0\n\n")
        assert (await client.answer())[2] == b"/2"


async def test_head_has_a_length_and_no_body(http):
    async with served(echo, http) as (_, connect, _):
        client = await connect()
        client.send("HEAD /a HTTP/1.1\nhost: x\n\n")
        status, headers, _ = await client.answer(head_only=True)
        assert (status, headers["content-length"]) == (200, "9")
        client.send(POST)
        assert (await client.answer())[2] == b"POST /a b=c hello"


async def test_http_1_0_and_connection_close_end_the_connection(http):
    async with served(echo, http) as (_, connect, _):
        for request in ("GET / HTTP/1.0\n\n", "GET / HTTP/1.1\nhost: x\nconnection: close\n\n"):
            client = await connect()
            client.send(request)
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert await client.is_closed()


async def test_an_application_may_close_the_connection(http):
    async def last(scope, receive, send):
        await respond(send, b"bye", headers=[(b"connection", b"close")])

    async with served(last, http) as (_, connect, _):
        client = await connect()
        client.send(POST)
        assert (await client.answer())[2] == b"bye"
        assert await client.is_closed()


async def test_the_application_hears_that_the_client_has_left(http):
    left = asyncio.get_running_loop().create_future()

    async def wait(scope, receive, send):
        await whole_body(receive)
        left.set_result((await receive())["type"])

    async with served(wait, http) as (app, connect, _):
        client = await connect()
        client.send(POST)
        while not app.scopes:
            await asyncio.sleep(0.001)
        client.writer.close()
        async with asyncio.timeout(5):
            assert await left == "http.disconnect"


async def test_a_slow_client_holds_the_application_back_and_loses_nothing(http):
    piece, pieces = b"x" * 65_536, 200
    sent = 0

    async def flood(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": TEXT})
        for _ in range(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            sent += 1
        await send({"type": "http.response.body", "body": b""})

    async with served(flood, http) as (_, connect, _):
        client = await connect()
        client.send("GET / HTTP/1.1\nhost: x\n\n")
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.1)
        assert sent < pieces
        assert len((await client.answer())[2]) == pieces * len(piece)


async def test_a_large_body_waits_until_the_application_reads_it(http):
    read = asyncio.Event()

    async def later(scope, receive, send):
        await read.wait()
        await respond(send, b"%d" % len(await whole_body(receive)))

    async with served(later, http) as (_, connect, _):
        client = await connect()
        size = 16 << 20
        client.send(f"POST / HTTP/1.1\nhost: x\ncontent-length: {size}\n\n")
        client.writer.write(b"x" * size)
        await asyncio.sleep(0.2)
        unsent = client.writer.transport.get_write_buffer_size()
        assert unsent > size // 2
        read.set()
        assert (await client.answer())[2] == b"%d" % size


async def test_a_defect_is_a_500_and_the_next_request_is_answered(http, caplog):
    async def broken(scope, receive, send):
        if scope["path"] == "/broken":
            raise ValueError("a defect")
        await echo(scope, receive, send)

    async with served(broken, http) as (_, connect, _):
        client = await connect()
        with caplog.at_level(logging.ERROR):
            client.send("GET /broken HTTP/1.1\nhost: x\n\n")
            assert (await client.answer())[0] == 500
        assert "a defect" in caplog.text
        client = await connect()
        client.send(POST)
        assert (await client.answer())[0] == 200


async def test_a_defect_within_an_answer_breaks_it_off(http, caplog):
    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": TEXT})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("a defect")

    async with served(broken, http) as (_, connect, _):
        client = await connect()
        with caplog.at_level(logging.ERROR):
            client.send("GET / HTTP/1.1\nhost: x\n\n")
            async with asyncio.timeout(5):
                assert b"0\r\n\r\n" not in await client.reader.read()


async def test_no_header_of_an_answer_starts_another(http, caplog):
    async def split(scope, receive, send):
        await respond(send, b"x", headers=[(b"x-name", b"a\r\nset-cookie: b")])

    async with served(split, http) as (_, connect, _):
        client = await connect()
        with caplog.at_level(logging.CRITICAL):
            client.send("GET / HTTP/1.1\nhost: x\n\n")
            async with asyncio.timeout(5):
                assert b"set-cookie" not in await client.reader.read(1 << 16)


async def test_what_is_no_http_is_refused_and_the_connection_ended(http):
    for nonsense in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"):
        async with served(echo, http) as (app, connect, _):
            client = await connect()
            client.send(nonsense)
            assert (await client.answer())[0] == 400
            assert await client.is_closed()
            assert not app.scopes


async def test_a_server_that_stops_ends_idle_connections_and_lets_the_others_finish(http):
    release = asyncio.Event()

    async def slow(scope, receive, send):
        await release.wait()
        await respond(send, b"done")

    async with served(slow, http) as (app, connect, server):
        idle, busy = await connect(), await connect()
        busy.send("GET / HTTP/1.1\nhost: x\n\n")
        while not app.scopes:
            await asyncio.sleep(0.001)
        server.stop.set()
        assert await idle.is_closed()
        release.set()
        status, headers, body = await busy.answer()
        assert (status, headers["connection"], body) == (200, "close", b"done")
        assert await busy.is_closed()


async def test_an_idle_connection_is_closed_after_its_time(http):
    async with served(echo, http, timeout_keep_alive=1) as (_, connect, _):
        client = await connect()
        client.send(POST)
        await client.answer()
        assert await client.is_closed()
