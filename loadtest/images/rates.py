"""Requests per second, end to end: the same client, the same engine, directly and through the gateway, in turns."""

from __future__ import annotations

import asyncio
import base64
import itertools
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from loadtest.images.stack import Side, Stack

CLIENTS = 8
MAX_TOKENS = 4
"""Short answers, as the pictures are what is measured; the product's tags are some 30 tokens."""


@dataclass
class Rates:
    """Requests per second of each round, and what one cost: milliseconds of CPU in all processes but the client's."""

    direct: list[float] = field(default_factory=list)
    gateway: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=lambda: {"direct": [], "gateway": []})

    @property
    def ratio(self) -> float:
        """How many times the direct rate the gateway's is: the median of the rounds, whose two halves are neighbours.

        What else the machine does changes from minute to minute and less within a round.
        """
        return statistics.median(through / direct for through, direct in zip(self.gateway, self.direct, strict=True))


def body(jpeg: bytes, text: str, model: str = "qwen3-vl-demo") -> bytes:
    """A chat request about one picture."""
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    messages = [{"role": "user", "content": parts}]
    return orjson.dumps({"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0})


async def rate(side: Side, bodies: list[bytes], clients: int = CLIENTS) -> float:
    """Requests per second with `clients` at once. Raises RuntimeError for any answer but 200."""
    queue = iter(bodies)
    headers = {"authorization": f"Bearer {side.key}", "content-type": "application/json"}

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as http:

        async def client() -> None:
            for one in queue:
                async with http.post(f"{side.url}/v1/chat/completions", data=one) as response:
                    text = await response.text()
                    if response.status != 200:  # noqa: PLR2004
                        raise RuntimeError(f"{side.name} answered {response.status}: {text[:500]}")

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
        return len(bodies) / (time.perf_counter() - begun)


def measure(stack: Stack, distinct: Iterator[bytes], *, count: int, same: bool, rounds: int) -> Rates:
    """Each round sends `count` requests directly and `count` through the gateway, which goes first every other time.

    `same`: one picture with different questions; else `count` pictures that nobody has seen.
    """
    rates = Rates()
    for turn in range(rounds):
        for side in (stack.direct, stack.gateway) if turn % 2 else (stack.gateway, stack.direct):
            bodies = [*_bodies(distinct, count, same=same)]
            if same:
                asyncio.run(rate(side, bodies[:1]))  # the first time is what "distinct" measures
            before_s = stack.cpu_s(side)
            result = asyncio.run(rate(side, bodies[1 if same else 0 :]))
            getattr(rates, side.name).append(result)
            rates.cpu_ms[side.name].append((stack.cpu_s(side) - before_s) * 1000 / count)
    return rates


def _bodies(distinct: Iterator[bytes], count: int, *, same: bool) -> Iterable[bytes]:
    pictures = itertools.repeat(next(distinct)) if same else distinct
    return (body(next(pictures), f"Question {n}: what is this?") for n in range(count + same))
