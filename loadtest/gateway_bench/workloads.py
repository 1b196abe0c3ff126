"""What is asked of each gateway, and the figures that are read off. Pure data, and bodies made from it."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from dataclasses import dataclass

MIB = 1 << 20
ID = "0123456789abcdef"
"""Stands where the load generator writes each request's own."""
PICTURES = 4
"""Different ones of a size, asked about in turns; a gateway may rewrite them, the answer does not tell."""
SIDE = 64
WORDS = "hello you " * 15
MODEL = "sim"


@dataclass(frozen=True, slots=True)
class Workload:
    """So many clients that ask again once they are answered."""

    name: str
    clients: int
    distinct: int = 0
    """Different questions, 0 for a new one each time: what is asked again, a cache may answer."""
    stream: bool = False
    tokens: int = 16
    ttft_us: int = 0
    itl_us: int = 0
    """Until the first token, and between two: microseconds."""
    picture_bytes: int = 0
    ours_only: bool = False


WORKLOADS = (
    Workload("c1", 1),
    Workload("c32", 32),
    Workload("hit", 32, distinct=64, ours_only=True),
    Workload("stream", 32, stream=True, tokens=64, ttft_us=5_000, itl_us=20_000),
    Workload("ttft", 1, stream=True, tokens=8),
    Workload("picture_1m", 4, picture_bytes=MIB),
    Workload("picture_4m", 2, picture_bytes=4 * MIB),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A column: where it is found in a round's record, and what it is called."""

    workload: str
    field: str
    heading: str
    in_ratios: bool = True
    digits: int = 0


FIGURES = (
    Figure("c32", "per_second", "requests/s, 32 clients"),
    Figure("c32", "cpu_us_per_request", "CPU µs/request"),
    Figure("c1", "latency_p50_us", "p50 µs, 1 client"),
    Figure("hit", "per_second", "cache hits/s", in_ratios=False),
    Figure("hit", "cpu_us_per_request", "CPU µs/hit", in_ratios=False),
    Figure("stream", "cpu_us_per_chunk", "CPU µs/chunk", digits=1),
    Figure("stream", "relay_p50_us", "chunk's way p50 µs"),
    Figure("ttft", "first_token_p50_us", "TTFT p50 µs"),
    Figure("picture_1m", "cpu_us_per_request", "1 MiB: CPU µs"),
    Figure("picture_4m", "cpu_us_per_request", "4 MiB: CPU µs"),
    Figure("memory", "idle_mib", "RSS idle MiB"),
    Figure("memory", "peak_mib", "RSS peak MiB"),
)


def body_of(workload: Workload, picture: int = 0) -> bytes:
    """A request as the OpenAI SDK would send it, with ID in place of the request's own; `picture` picks one of them."""
    text = f"sim ttft={workload.ttft_us} itl={workload.itl_us} tokens={workload.tokens} id={ID} {WORDS}"
    content: object = text
    if workload.picture_bytes:
        url = "data:image/png;base64," + base64.b64encode(png(workload.picture_bytes * 3 // 4, picture)).decode()
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": workload.tokens,
        "temperature": 0,
    }
    if workload.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body, separators=(",", ":")).encode()


def bodies_of(workload: Workload) -> list[bytes]:
    """The bodies that are asked in turns."""
    return [body_of(workload, picture) for picture in range(PICTURES if workload.picture_bytes else 1)]


def png(size: int, seed: int) -> bytes:
    """A grey picture of SIDE x SIDE random pixels, padded to exactly `size` bytes by a private chunk of noise."""
    noise = random.Random(seed)  # noqa: S311 - pixels, no secrets
    rows = b"".join(b"\0" + noise.randbytes(SIDE) for _ in range(SIDE))
    start = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(rows))
    )
    end = _chunk(b"IEND", b"")
    return start + _chunk(b"paDd", noise.randbytes(size - len(start) - len(end) - len(_chunk(b"paDd", b"")))) + end


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
