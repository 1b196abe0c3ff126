"""What both clients make of answers, good and bad, in one piece and in every two pieces."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import EngineMisbehaved
from tests.support.raw_server import raw_server, says
from tests.support.verdicts import BROKE_OFF, STALLED, UNREACHABLE, WAYS, verdict, verdict_of_one

OCTETS = b"application/octet-stream"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

GOOD = {
    "length": (OK + b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello", (200, b"text/plain", b"hello")),
    "chunked": (CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", (200, OCTETS, b"hello world")),
    "chunk-extension": (CHUNKED + b"5;a=b\r\nhello\r\n0\r\n\r\n", (200, OCTETS, b"hello")),
    "upper-case-chunk-size": (CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", (200, OCTETS, b"0123456789")),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Type: text/evil\r\n\r\n", (200, OCTETS, b"hi")),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", (200, OCTETS, b"")),
    "empty-chunked": (CHUNKED + b"0\r\n\r\n", (200, OCTETS, b"")),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, OCTETS, b"")),
    "not-modified-with-a-length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, OCTETS, b"")),
    "header-names-in-any-case": (OK + b"cOnTeNt-LeNgTh: 2\r\nCONTENT-TYPE: a/b\r\n\r\nhi", (200, b"a/b", b"hi")),
    "no-reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", (200, OCTETS, b"hi")),
    "continue-first": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi", (200, OCTETS, b"hi")),
    "early-hints-first": (
        b"HTTP/1.1 103 Early Hints\r\nContent-Type: a/b\r\nLink: </x>\r\n\r\n" * 2 + OK + b"Content-Length: 2\r\n\r\nhi",
        (200, OCTETS, b"hi"),
    ),
    "an-error": (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", (500, OCTETS, b"no")),
    "a-redirect-is-not-followed": (
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", (302, OCTETS, b"")),
    "compressed-is-passed-on": (OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", (200, OCTETS, b"\x1f\x8b")),
    "nul-in-the-body": (OK + b"Content-Length: 3\r\n\r\na\0b", (200, OCTETS, b"a\0b")),
}  # fmt: skip
UNTIL_CLOSE = {
    "until-close": (OK + b"Content-Type: text/plain\r\n\r\nhello", (200, b"text/plain", b"hello")),
    "http-1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", (200, OCTETS, b"hello")),
    "keep-alive-without-a-length": (OK + b"Connection: keep-alive\r\n\r\nhello", (200, OCTETS, b"hello")),
    "nothing-until-close": (OK + b"\r\n", (200, OCTETS, b"")),
    "length-and-close": (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", (200, OCTETS, b"hello")),
}
BROKEN = {
    "nothing": (b"", UNREACHABLE),
    "half-a-status": (b"HTTP/1.1 20", UNREACHABLE),
    "half-a-head": (OK + b"Content-Le", UNREACHABLE),
    "only-an-interim-answer": (b"HTTP/1.1 100 Continue\r\n\r\n", UNREACHABLE),
    "no-http": (b"+PONG\r\n\r\n", UNREACHABLE),
    "tls": (b"\x15\x03\x01\x00\x02\x02\x46", UNREACHABLE),
    "a-request": (b"GET / HTTP/1.1\r\n\r\n", UNREACHABLE),
    "status-of-four-digits": (b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", UNREACHABLE),
    "nul-in-a-header": (OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n", UNREACHABLE),
    "two-lengths": (OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello", UNREACHABLE),
    "two-equal-lengths": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", UNREACHABLE),
    "a-list-of-lengths": (OK + b"Content-Length: 2, 2\r\n\r\nhi", UNREACHABLE),
    "a-signed-length": (OK + b"Content-Length: +2\r\n\r\nhi", UNREACHABLE),
    "a-negative-length": (OK + b"Content-Length: -2\r\n\r\nhi", UNREACHABLE),
    "a-length-beyond-64-bits": (OK + b"Content-Length: 99999999999999999999\r\n\r\nhi", UNREACHABLE),
    "an-endless-header": (OK + b"X: " + b"a" * 300_000, UNREACHABLE),
    "length-too-long": (OK + b"Content-Length: 9\r\n\r\nhello", (200, BROKE_OFF)),
    "close-in-a-chunk": (CHUNKED + b"5\r\nhel", (200, BROKE_OFF)),
    "close-between-chunks": (CHUNKED + b"5\r\nhello\r\n", (200, BROKE_OFF)),
    "close-before-the-last-line": (CHUNKED + b"5\r\nhello\r\n0\r\n", (200, BROKE_OFF)),
    "a-chunk-size-that-is-none": (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", (200, BROKE_OFF)),
    "a-negative-chunk-size": (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", (200, BROKE_OFF)),
    "a-prefixed-chunk-size": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", (200, BROKE_OFF)),
    "a-chunk-size-beyond-64-bits": (CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", (200, BROKE_OFF)),
    "a-chunk-longer-than-it-says": (CHUNKED + b"4\r\nhello\r\n0\r\n\r\n", (200, BROKE_OFF)),
}  # fmt: skip
STRICTER = {
    "length-and-chunked": (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nhello", UNREACHABLE),
    "chunked-and-length": (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nhello", UNREACHABLE),
    "a-coding-under-chunked": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", UNREACHABLE),
    "a-coding-over-chunked": (OK + b"Transfer-Encoding: chunked, gzip\r\n\r\nhello", UNREACHABLE),
    "chunked-twice": (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", UNREACHABLE),
    "chunked-hidden": (OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", UNREACHABLE),
    "identity": (OK + b"Transfer-Encoding: identity\r\n\r\nhello", UNREACHABLE),
    "chunked-in-http-1.0": (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", UNREACHABLE),
    "http-2.0": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", UNREACHABLE),
    "http-0.9": (b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", UNREACHABLE),
    "status-099": (b"HTTP/1.1 099 Hm\r\nContent-Length: 0\r\n\r\n", UNREACHABLE),
    "status-600": (b"HTTP/1.1 600 Hm\r\nContent-Length: 0\r\n\r\n", UNREACHABLE),
    "switching-protocols": (b"HTTP/1.1 101 Hm\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc", UNREACHABLE),
    "folded-header": (OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", UNREACHABLE),
    "space-before-the-colon": (OK + b"Content-Length : 2\r\n\r\nhi", UNREACHABLE),
    "bare-line-feeds": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", UNREACHABLE),
    "bare-line-feeds-in-chunks": (CHUNKED + b"2\nhi\n0\n\n", (200, BROKE_OFF)),
    "space-in-a-chunk-size": (CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n", (200, BROKE_OFF)),
    "a-length-in-the-trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 5\r\n\r\n", (200, BROKE_OFF)),
    "many-headers": (OK + b"X-Name: a-value-of-some-length\r\n" * 3000 + b"Content-Length: 0\r\n\r\n", UNREACHABLE),
    "many-interim-answers": (b"HTTP/1.1 102 Processing\r\nX-Name: a\r\n\r\n" * 8000, UNREACHABLE),
    "many-bare-interim-answers": (b"HTTP/1.1 102 Processing\r\n\r\n" * 8000, UNREACHABLE),
    "an-endless-trailer": (CHUNKED + b"2\r\nhi\r\n0\r\nX: " + b"a" * 300_000, (200, BROKE_OFF)),
    "an-endless-chunk-extension": (CHUNKED + b"2;" + b"a" * 300_000, (200, BROKE_OFF)),
}
"""What llhttp, as aiohttp sets it, lets pass, or what it only refuses by other means."""


def cases(table):
    return pytest.mark.parametrize(("raw", "expected"), table.values(), ids=table)


class TestGoodAnswers:
    @cases(GOOD)
    @pytest.mark.parametrize("way", WAYS)
    async def test_one_is_read_and_its_connection_used_again(self, client, raw, expected, way):
        async with raw_server(says(raw)) as server:
            for _ in range(3):
                assert await verdict(client, server.url, way=way) == expected
        assert server.connections == 1

    @cases({**GOOD, **UNTIL_CLOSE})
    @pytest.mark.parametrize("way", WAYS)
    async def test_one_that_ends_with_its_connection_is_read(self, make_client, raw, expected, way):
        async with raw_server(says(raw, close=True)) as server:
            assert await verdict_of_one(make_client, server.url, way=way) == expected

    @cases({**GOOD, **UNTIL_CLOSE})
    async def test_one_may_be_split_anywhere(self, make_client, raw, expected):
        splits = iter(range(len(raw) + 1))

        async def script(talk):
            await talk.request()
            at = next(splits)
            await talk.say(raw[:at], raw[at:])

        async with raw_server(script) as server:
            for _ in range(len(raw) + 1):
                assert await verdict_of_one(make_client, server.url) == expected

    @cases({**GOOD, **UNTIL_CLOSE})
    async def test_one_may_come_byte_by_byte(self, make_client, raw, expected):
        async with raw_server(says(*(raw[i : i + 1] for i in range(len(raw))), close=True)) as server:
            assert await verdict_of_one(make_client, server.url) == expected

    async def test_a_head_has_no_body(self, client):
        raw = OK + b"Content-Length: 5\r\n\r\n"
        async with raw_server(says(raw)) as server:
            for _ in range(2):
                assert await verdict(client, server.url, method="HEAD", body=None) == (200, OCTETS, b"")

    async def test_ten_mebibytes_are_the_same_at_the_end(self, client):
        body = bytes(range(256)) * 4096 * 10
        async with raw_server(says(OK + b"Content-Length: %d\r\n\r\n" % len(body), body)) as server:
            for way in WAYS:
                assert await verdict(client, server.url, way=way) == (200, OCTETS, body)


class TestBadAnswers:
    @cases(BROKEN)
    async def test_one_is_refused(self, make_client, raw, expected):
        async with raw_server(says(raw, close=True)) as server:
            for way in WAYS:
                # When a fault of the body comes in one segment with the head, the reference refuses both.
                assert await verdict_of_one(make_client, server.url, way=way) in {expected, UNREACHABLE}

    @pytest.mark.parametrize("make_client", ["http1"], indirect=True)
    @cases(BROKEN)
    async def test_a_fault_of_the_body_leaves_the_head_known(self, make_client, raw, expected):
        async with raw_server(says(raw, close=True)) as server:
            for way in WAYS:
                assert await verdict_of_one(make_client, server.url, way=way) == expected

    @pytest.mark.parametrize("make_client", ["http1"], indirect=True)
    @cases(STRICTER)
    async def test_one_that_the_reference_lets_pass_is_refused(self, make_client, raw, expected):
        async with raw_server(says(raw, close=True)) as server:
            assert await verdict_of_one(make_client, server.url) == expected

    @pytest.mark.parametrize("make_client", ["http1"], indirect=True)
    @cases({name: case for name, case in {**BROKEN, **STRICTER}.items() if len(case[0]) < 300})
    async def test_one_is_refused_wherever_it_is_split(self, make_client, raw, expected):
        splits = iter(range(len(raw) + 1))

        async def script(talk):
            await talk.request()
            at = next(splits)
            await talk.say(raw[:at], raw[at:])

        async with raw_server(script) as server:
            for _ in range(len(raw) + 1):
                assert await verdict_of_one(make_client, server.url) == expected

    @pytest.mark.parametrize("make_client", ["http1"], indirect=True)
    async def test_what_came_before_the_fault_is_given_first(self, client):
        async with raw_server(says(CHUNKED + b"5\r\nhello\r\n", b"zz\r\n", close=True)) as server:
            response = await client.send("POST", server.url, {}, b"{}")
            chunks = response.chunks()
            assert await anext(chunks) == b"hello"
            with pytest.raises(EngineMisbehaved, match="broke off"):
                await anext(chunks)
            response.close()

    @pytest.mark.parametrize("reset", [False, True], ids=["ends", "is reset"])
    async def test_an_answer_whose_connection_ends_is_broken_off(self, client, reset):
        async def script(talk):
            await talk.request()
            await talk.say(CHUNKED + b"5\r\nhello\r\n")
            await go_on.wait()
            if reset:
                talk.writer.transport.abort()

        go_on = asyncio.Event()
        async with raw_server(script) as server:
            response = await client.send("POST", server.url, {}, b"{}")
            chunks = response.chunks()
            assert await anext(chunks) == b"hello"
            go_on.set()
            with pytest.raises(EngineMisbehaved, match="broke off"):
                await anext(chunks)
            response.close()


class TestSilence:
    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            (b"", STALLED),
            (OK + b"Content-Le", STALLED),
            (OK + b"Content-Length: 9\r\n\r\nhello", (200, STALLED)),
            (CHUNKED + b"5\r\nhel", (200, STALLED)),
            (OK + b"\r\nhello", (200, STALLED)),
        ],
        ids=["nothing", "half-a-head", "half-a-body", "half-a-chunk", "until-close"],
    )
    async def test_an_engine_that_falls_silent_is_given_up(self, make_client, raw, expected):
        client = make_client(idle_timeout_s=0.1)

        async def script(talk):
            await talk.request()
            await talk.say(raw)
            await talk.until_left()

        async with raw_server(script) as server:
            for way in WAYS:
                assert await verdict(client, server.url, way=way) == expected
            await client.aclose()

    async def test_an_answer_may_take_longer_than_the_longest_silence(self, make_client):
        client = make_client(idle_timeout_s=0.3)

        async def script(talk):
            await talk.request()
            await talk.say(CHUNKED)
            for _ in range(10):
                await asyncio.sleep(0.06)
                await talk.say(b"1\r\na\r\n")
            await talk.say(b"0\r\n\r\n")

        async with raw_server(script) as server:
            assert await verdict(client, server.url) == (200, OCTETS, b"a" * 10)
        await client.aclose()
