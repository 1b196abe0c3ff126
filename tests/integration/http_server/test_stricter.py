"""Where the gateway's protocol says more than uvicorn's: OpenAI's error shape, bounded heads, half a request that waits."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.asgi import wire_of
from tests.integration.http_server.conftest import served
from tests.integration.http_server.test_protocol import POST, echo, respond, whole_body
from tests.support.gateway import SERVER


async def test_what_is_no_http_is_refused_in_openai_s_shape():
    async with served(echo, SERVER) as (_, connect, _):
        client = await connect()
        client.send(b"\x16\x03\x01\x02\x00")
        status, headers, body = await client.answer()
        assert (status, headers["content-type"], headers["connection"]) == (400, "application/json", "close")
        error = json.loads(body)["error"]
        assert (error["code"], error["message"]) == ("malformed_request", "This is no HTTP/1.1 request.")


async def test_a_head_without_an_end_is_refused():
    for endless in (b"a: b\r\n", b"a: " + b"b" * 1000 + b"\r\n"):
        async with served(echo, SERVER) as (app, connect, _):
            client = await connect()
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n" + endless * 100_000)
            status, _, body = await client.answer()
            assert (status, json.loads(body)["error"]["code"]) == (431, "head_too_large")
            assert await client.is_closed()
            assert not app.scopes


@pytest.mark.parametrize(
    "before", ["GET / HTTP/1.1\nhost: x\n", "POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\n0\n"]
)
async def test_a_head_or_trailer_is_refused_as_soon_as_it_is_too_large(before):
    async with served(echo, SERVER) as (_, connect, server):
        client = await connect()
        client.send(before.replace("\n", "\r\n").encode())
        for _ in range(80):
            client.send(b"a: " + b"b" * 1000 + b"\r\n")
        async with asyncio.timeout(5):
            while server.server_state.connections:
                await asyncio.sleep(0.001)


async def test_a_target_without_an_end_is_refused():
    async with served(echo, SERVER) as (_, connect, _):
        client = await connect()
        client.send(b"GET /" + b"a" * 1_000_000)
        assert (await client.answer())[0] == 431


async def test_half_a_request_does_not_hold_a_connection_for_ever():
    async with served(echo, SERVER, timeout_keep_alive=1) as (_, connect, _):
        client = await connect()
        client.send("POST / HTTP/1.1\nhost:")
        assert await client.is_closed()


async def test_a_long_answer_outlives_the_time_for_idle_connections():
    async def slow(scope, receive, send):
        await asyncio.sleep(1.5)
        await echo(scope, receive, send)

    async with served(slow, SERVER, timeout_keep_alive=1) as (_, connect, _):
        client = await connect()
        client.send(POST)
        assert (await client.answer())[2] == b"POST /a b=c hello"


async def test_an_upgrade_is_answered_as_if_it_had_not_been_asked_for_and_nothing_after_it():
    async with served(echo, SERVER) as (app, connect, _):
        client = await connect()
        client.send("GET /a HTTP/1.1\nhost: x\nconnection: upgrade\nupgrade: h2c\n\nGET /b HTTP/1.1\nhost: x\n\n")
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", b"GET /a  ")
        assert await client.is_closed()
        assert [scope["path"] for scope in app.scopes] == ["/a"]


async def test_nonsense_behind_a_request_does_not_take_its_answer_away():
    release = asyncio.Event()

    async def slow(scope, receive, send):
        await release.wait()
        await echo(scope, receive, send)

    async with served(slow, SERVER) as (app, connect, _):
        client = await connect()
        client.send(POST)
        while not app.scopes:
            await asyncio.sleep(0.001)
        client.send(b"\0\0\0\0")
        await asyncio.sleep(0.05)
        release.set()
        assert (await client.answer())[2] == b"POST /a b=c hello"
        assert await client.is_closed()


async def test_a_body_that_turns_into_nonsense_is_refused():
    async with served(echo, SERVER) as (_, connect, _):
        client = await connect()
        client.send("POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\n3\nabc\nnonsense\n")
        status, _, body = await client.answer()
        assert (status, json.loads(body)["error"]["code"]) == (400, "malformed_request")
        assert await client.is_closed()


async def test_odd_targets_are_answered_or_refused_and_never_a_defect(caplog):
    async with served(echo, SERVER) as (_, connect, _):
        for target in ("*", "//x", "/a#b", "http://", "http://x", "/%", "/%ff", "/\x7f", "/é", "a", "?", "/a?b?c#d"):
            client = await connect()
            client.send(f"OPTIONS {target} HTTP/1.1\nhost: x\n\n")
            assert (await client.answer())[0] in {200, 400}, target
    assert not caplog.records


async def test_a_trailer_is_no_header():
    async with served(echo, SERVER) as (app, connect, _):
        client = await connect()
        client.send("POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\n1\na\n0\nx-forwarded-for: 1.2.3.4\n\n")
        assert (await client.answer())[2] == b"POST /  a"
        assert [name for name, _ in app.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("asked_before", [True, False])
async def test_who_asked_to_be_told_is_told_when_the_client_leaves(asked_before):
    told, gone = asyncio.Event(), asyncio.Event()

    async def wait(scope, receive, send):
        await whole_body(receive)
        if not asked_before:
            assert (await receive())["type"] == "http.disconnect"
        wire_of(scope).when_gone(told.set)
        await asyncio.wait_for(told.wait(), 5)
        gone.set()

    async with served(wait, SERVER) as (app, connect, _):
        client = await connect()
        client.send(POST)
        while not app.scopes:
            await asyncio.sleep(0.001)
        client.writer.close()
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_client_that_leaves_after_its_answer_is_nobody_s_news():
    told = asyncio.Event()

    async def answer(scope, receive, send):
        await whole_body(receive)
        wire_of(scope).when_gone(told.set)
        wire_of(scope).when_gone(None)
        await respond(send, b"done")

    async with served(answer, SERVER) as (_, connect, server):
        client = await connect()
        client.send(POST)
        assert (await client.answer())[2] == b"done"
        client.writer.close()
        async with asyncio.timeout(5):
            while server.server_state.connections:
                await asyncio.sleep(0.001)
        assert not told.is_set()


async def test_a_request_that_is_answered_is_no_task_of_the_server_s_any_more():
    async with served(echo, SERVER) as (_, connect, server):
        client = await connect()
        for _ in range(3):
            client.send(POST)
            await client.answer()
        async with asyncio.timeout(5):
            while server.server_state.tasks:
                await asyncio.sleep(0.001)
