"""A scripted engine in a process of its own, to be stopped and killed like a real one.

`python -m tests.support.engine_process PORT` answers until it is killed: a stream is ten words with a pause before each.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys

import httpx
from aiohttp import web

from tests.support.demo import ROOT, die_with_parent
from tests.support.engine import DONE, ScriptedEngine, chat_answer, chunk
from tests.support.ports import free_port

PAUSE_S = 0.05
WORDS = 10


async def answer(request, body):
    if not body.get("stream"):
        await asyncio.sleep(PAUSE_S)
        return web.json_response(chat_answer("whole"))
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for word in range(int(body.get("max_tokens") or WORDS)):
        await asyncio.sleep(PAUSE_S)
        await response.write(chunk(f"word {word} "))
    await response.write(DONE)
    return response


class EngineProcess:
    """Use as `async with`: ready inside, gone afterwards."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "tests.support.engine_process", str(self.port)]
        self.process = subprocess.Popen(argv, cwd=ROOT, preexec_fn=die_with_parent)  # noqa: PLW1509 - one call into libc

    def signal(self, number):
        self.process.send_signal(number)

    async def __aenter__(self):
        async with httpx.AsyncClient() as http, asyncio.timeout(60):
            while True:
                assert self.process.poll() is None
                with contextlib.suppress(httpx.TransportError):
                    await http.get(self.url + "/health")
                    return self
                await asyncio.sleep(0.05)

    async def __aexit__(self, *_):
        self.process.kill()  # works on a stopped process too
        await asyncio.to_thread(self.process.wait, 10)


async def main(port):
    engine = ScriptedEngine(script=answer, port=port)
    await engine.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
