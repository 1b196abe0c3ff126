"""`make bench-parts`: what Redis, the audit, the queue and the choice of an engine cost, for docs/scaling.md.

    python -m loadtest.bench_parts [--write]

The gateway's own classes against a real redis-server and a real file, no sockets of clients. CPU, not time, so that
what else runs on the machine matters little; each figure is the least of some batches. `--write` puts them into
loadtest/scaling-parts.toml, from where `make scaling` takes them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.admission import Admission
from gateway.audit import Audit, Happening, sink_of
from gateway.limit_redis import RedisLimitStore
from gateway.limits import Limits
from gateway.stores import RedisStore
from gateway.upstream.endpoints import Endpoints
from loadtest.bench_gateway import machine
from loadtest.gateway_bench.processes import cpu_s
from loadtest.images.stack import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from gateway.key_ring import Priority

OUT = Path(__file__).with_name("scaling-parts.toml")
BATCHES = 5
KEYS, SCRIPTS, COMMANDS = 20, 2_000, 2_000
LIMITS = Limits(10**6, 10**9, 10**5, 10**9)
"""None is reached."""
ANSWER = b"x" * 600
RECORDS, WAITERS = 1_000, 1_000
ENGINES = (4, 64, 1_000)
ANSWERED = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1760000000,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"A red bag with white dots."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":300,"completion_tokens":12,"total_tokens":312}}'
)
FACTS = {
    "time": "2026-01-01T00:00:00.000000Z", "request_id": "0123456789abcdef0123456789abcdef", "tenant": "shop",
    "key_id": "shop-1", "client_ip": "203.0.113.7", "operation": "chat", "model": "qwen3-vl-8b", "status": 200,
    "cache": "miss", "engine": "http://10.0.0.1:8000", "stream": False, "images": ["0" * 64], "duration_ms": 512.25,
    "steps_ms": dict.fromkeys(("address", "auth", "limits", "body", "images", "cache", "queue", "engine"), 0.123),
}  # fmt: skip


class PartsError(Exception):
    """A part cannot be measured; the message says what to do."""


@contextmanager
def redis_server() -> Iterator[tuple[int, str]]:
    """Run a redis-server of our own; its process id and URL. Raises PartsError."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise PartsError("redis-server is missing: run `make system`")
    port = free_port()
    argv = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            yield process.pid, f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


async def least_us(server: int, times: int, batch: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of the server's CPU for each of `times` things that a batch does; the first batch connects."""
    found = []
    for _ in range(BATCHES + 1):
        before = cpu_s(server)
        await batch()
        found.append((cpu_s(server) - before) / times * 1e6)
    return min(found[1:])


async def script_us(server: int, url: str) -> float:
    """One script of the limits: an admission, or the end of a request."""
    store = RedisLimitStore(url, lambda: None, timeout_s=10)

    async def batch() -> None:
        async def one(number: int) -> None:
            verdict = await store.admit(f"key-{number % KEYS}", LIMITS, 100)
            if verdict.charge is None:
                raise PartsError("a limit was reached that none should reach")
            store.finish(verdict.charge, 90)

        for begin in range(0, SCRIPTS, 100):
            await asyncio.gather(*(one(number) for number in range(begin, begin + 100)))
        await asyncio.sleep(0.2)  # what is finished is told in the background

    try:
        return await least_us(server, SCRIPTS * 2, batch)
    finally:
        await store.aclose()


async def command_us(server: int, url: str) -> float:
    """One command of the cache: the mean of a look and a write of 600 bytes."""
    store = RedisStore(url, timeout_s=10)

    async def batch() -> None:
        async def one(number: int) -> None:
            await store.get(b"%d" % number)
            await store.put(b"%d" % number, ANSWER, 60)

        for begin in range(0, COMMANDS, 32):
            await asyncio.gather(*(one(number) for number in range(begin, min(begin + 32, COMMANDS))))

    try:
        return await least_us(server, COMMANDS * 2, batch)
    finally:
        await store.aclose()


def audit(folder: Path) -> tuple[float, float]:
    """Microseconds of the audit's thread for a record with hashes, written to a file; bytes of one."""
    found, size = [], 0.0
    for number in range(BATCHES):
        path = folder / f"audit-{number}.jsonl"
        began = time.process_time()
        log = Audit(sink_of(path, max_bytes=1 << 30, backups=1), policy="hash", secret=b"s" * 32)
        prompt = [{"role": "user", "content": [{"type": "text", "text": "What is this? " * 4}]}]
        for _ in range(RECORDS):
            log.submit(Happening(FACTS, prompt, ANSWERED))
        log.close()
        found.append((time.process_time() - began) / RECORDS * 1e6)
        lines = path.read_bytes().splitlines()
        if len(lines) != RECORDS:
            raise PartsError(f"{RECORDS - len(lines)} of {RECORDS} audit records were not written")
        size = path.stat().st_size / RECORDS
    return min(found), size


async def queue_us() -> float:
    """Microseconds of CPU for a request that waits: in and, when its turn comes, out."""
    found = []
    for _ in range(BATCHES):
        deadlines: dict[Priority, float] = {"interactive": 60.0, "default": 60.0, "bulk": 60.0}
        queue = Admission(lambda: 1, max_waiting=WAITERS * 2, deadlines_s=deadlines)
        first = await queue.enter("tenant", "interactive")

        async def wait(queue: Admission, number: int) -> None:
            (await queue.enter(f"tenant-{number % KEYS}", "interactive")).release()

        began = time.process_time()
        waiting = [asyncio.ensure_future(wait(queue, number)) for number in range(WAITERS)]
        await asyncio.sleep(0)  # each has had its turn once, and waits
        if queue.waiting != WAITERS:
            raise PartsError(f"{queue.waiting} of {WAITERS} requests wait")
        first.release()
        await asyncio.gather(*waiting)
        found.append((time.process_time() - began) / WAITERS * 1e6)
    return min(found)


def choice_us(engines: int, *, known: bool = False) -> float:
    """Microseconds of CPU for the choice among so many engines, each with a request under way.

    For keys that are new, or `known`: the picture or the conversation has been before.
    """
    endpoints = Endpoints([f"http://10.{number >> 8}.{number & 255}.1:8000" for number in range(engines)])
    for endpoint in endpoints.all:
        endpoints.lease(endpoint)
    times = max(50, 20_000 // engines)
    found = []
    for batch in range(BATCHES):
        keys = [b"tenant\0picture\0%032d" % (batch * times + number) for number in range(times)]
        if known:
            keys = [keys[0]] * times
            endpoints.choose(keys[0])
        began = time.process_time()
        for key in keys:
            if endpoints.choose(key) is None:
                raise PartsError("no engine was chosen")
        found.append((time.process_time() - began) / times * 1e6)
    return min(found)


async def _measured(folder: Path) -> dict[str, float]:
    with redis_server() as (server, url):
        await asyncio.sleep(0.5)
        script, command = await script_us(server, url), await command_us(server, url)
    record_us, record_bytes = audit(folder)
    choices = {f"choose_{many}_us": choice_us(many) for many in ENGINES}
    few, many = ENGINES[0], ENGINES[-1]
    return {
        "redis_script_us": script,
        "redis_command_us": command,
        "audit_us": record_us,
        "audit_bytes": record_bytes,
        "queue_us": await queue_us(),
        **choices,
        f"choose_{many}_known_us": choice_us(many, known=True),
        "choose_engine_ns": (choices[f"choose_{many}_us"] - choices[f"choose_{few}_us"]) / (many - few) * 1000,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 when something cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"into {OUT.name}")
    asked = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(_measured(Path(folder)))
    except PartsError as exc:
        print(exc, file=sys.stderr)
        return 1
    finally:
        logging.disable(logging.NOTSET)
    lines = "".join(f"{name} = {float(f'{value:.3g}'):g}\n" for name, value in found.items())
    text = f"# Written by `make bench-parts ARGS=--write`; CPU, least of {BATCHES} batches.\n"
    text += f'machine = "{machine()}"\n{lines}'
    print(text, end="")
    if asked.write:
        OUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
