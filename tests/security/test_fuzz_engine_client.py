"""The engine client against mutated answers: it never hangs, raises nothing but the seam's errors, and takes for an
answer only what the reference takes for the same one."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.upstream.http1 import Http1Client
from tests.support.aiohttp_client import AiohttpClient
from tests.support.raw_server import raw_server
from tests.support.verdicts import verdict

PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No\r\n", b"HTTP/1.1 304 No\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length:\t5 \r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"transfer-encoding: Chunked\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Upgrade: h2c\r\n", b"Content-Type: a/b\r\n", b"X: y\r\n", b" folded\r\n",
    b"\r\n", b"\n", b"\r", b"5\r\nhello\r\n", b"5;x=y\r\nhello\r\n", b"0\r\n", b"0\r\n\r\n", b"hello", b"\0", b" ", b":", b"-1\r\n", b"ffffffff\r\n",
]  # fmt: skip
WHOLE = [
    b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 102 Wait\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\nuntil the end",
]


@st.composite
def mutated(draw):
    """A sound answer with a few bytes cut out, put in or changed."""
    raw = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        cut = draw(st.integers(0, 3))
        raw[at : at + cut] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
    return bytes(raw)


answers = st.one_of(
    mutated(),
    st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map(lambda parts: b"HTTP/1.1 200 OK\r\n" + b"".join(parts)),
    st.binary(max_size=60),
)


def is_answer(of):
    return isinstance(of, tuple) and len(of) == 3


async def both(raw: bytes, splits: list[int]) -> tuple[object, object, object]:
    async def script(talk):
        await talk.request()
        if talk.number == 0:
            cuts = [0, *sorted(min(split, len(raw)) for split in splits), len(raw)]
            await talk.say(*(raw[a:b] for a, b in itertools.pairwise(cuts)))
        else:
            await talk.say(raw)

    found = []
    async with raw_server(script) as server:
        for kind in (Http1Client, Http1Client, AiohttpClient):
            client = kind(connect_timeout_s=5, idle_timeout_s=5)
            async with asyncio.timeout(10):
                found.append(await verdict(client, server.url))
                await client.aclose()
    return found[0], found[1], found[2]


async def alone(raw: bytes) -> object:
    """The reference's verdict."""

    async def script(talk):
        await talk.request()
        await talk.say(raw)

    async with raw_server(script) as server:
        client = AiohttpClient(connect_timeout_s=5, idle_timeout_s=5)
        async with asyncio.timeout(10):
            found = await verdict(client, server.url)
            await client.aclose()
    return found


@settings(max_examples=300)
@given(raw=answers, splits=st.lists(st.integers(0, 200), max_size=4))
@example(raw=b"HTTP/1.0 200\r\nContent-Length:0\r\n\r\n\x00", splits=[])
def test_no_answer_is_taken_for_what_it_is_not(raw, splits):
    split, in_one_piece, reference = asyncio.run(both(raw, splits))
    if is_answer(split) or is_answer(in_one_piece):
        assert split == in_one_piece
        # What stands behind a complete answer spoils it for the reference if it comes in the same moment. Ours gives the
        # answer, and the connection up. So: some beginning of the bytes is this very answer.
        ends = range(len(raw) - 1, 0, -1)
        assert reference == split or any(asyncio.run(alone(raw[:end])) == split for end in ends)
