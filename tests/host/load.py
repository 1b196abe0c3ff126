"""Clients that ask without a pause, half of them for streams, on connections that they keep: what a deployment must not lose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field

import httpx

from tests.support.gateway import KEY

CLIENTS = 6
TIMEOUT_S = 120


@dataclass
class Load:
    """What came of it."""

    asked: int = 0
    failed: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    def __str__(self) -> str:
        first = f" (the first: {self.failed[0]})" if self.failed else ""
        return f"{self.asked} requests, {len(self.failed)} failed{first}, the longest {self.longest_s:.1f} s"

    async def client(self, url: str, number: int, stop: asyncio.Event) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S) as http:
            turn = 0
            while not stop.is_set():
                turn += 1
                self.asked += 1
                began = time.monotonic()
                try:
                    fault = await self._ask(http, f"client {number} turn {turn}", streamed=turn % 2 == 0)
                except httpx.HTTPError as exc:
                    fault = repr(exc)
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                if fault:
                    self.failed.append(f"client {number} turn {turn}: {fault}")

    @staticmethod
    async def _ask(http: httpx.AsyncClient, text: str, *, streamed: bool) -> str | None:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": streamed, "temperature": 1}
        response = await http.post("/v1/chat/completions", json=body)
        if response.status_code != 200:
            return f"status {response.status_code}: {response.text[:200]}"
        if not streamed:
            said = response.json()["choices"][0]["message"]["content"]
        else:
            events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
            if events[-1:] != ["[DONE]"]:
                return f"stream cut off: {response.text[-200:]}"
            pieces = [json.loads(event)["choices"] for event in events[:-1]]
            said = "".join(choices[0]["delta"].get("content", "") for choices in pieces if choices)
        return None if said == text else f"{said!r}"


@contextlib.asynccontextmanager
async def under_load(url: str, clients: int = CLIENTS):
    """Ask from the first line of the block to its last."""
    load, stop = Load(), asyncio.Event()
    tasks = [asyncio.create_task(load.client(url, number, stop)) for number in range(clients)]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*tasks)
