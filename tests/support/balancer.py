"""A tiny load balancer, as kube-proxy is one: it forwards connections, not requests, to the targets that are ready."""

from __future__ import annotations

import asyncio
import contextlib
import itertools


class Balancer:
    """Use as `async with`. New connections go in turn to targets whose /readyz says yes; old ones stay where they are."""

    def __init__(self, ports, check_s=0.05):
        self._ports = ports
        self._check_s = check_s
        self._turn = itertools.count()
        self._tasks = set()
        self.ready = set()
        self.refused = 0
        """Connections that found no target: each is a failed request of some client."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._tasks = {asyncio.create_task(self._check(port)) for port in self._ports}
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _check(self, port):
        while True:
            try:
                # A connection for each question: one that is kept would be closed by the drain.
                # By hand: an httpx client takes 20 ms of CPU to make, and this loop also carries the load.
                async with asyncio.timeout(2):
                    ready = await is_ready(port)
            except (OSError, asyncio.IncompleteReadError):
                ready = False
            (self.ready.add if ready else self.ready.discard)(port)
            await asyncio.sleep(self._check_s)

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            ready = sorted(self.ready)
            if not ready:
                self.refused += 1
                return
            target = await asyncio.open_connection("127.0.0.1", ready[next(self._turn) % len(ready)])
            both = [asyncio.create_task(pump(*way)) for way in ((reader, target[1]), (target[0], writer))]
            try:
                # Either side closes: so does the other, as in a forwarded connection.
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in both:
                    way.cancel()
                target[1].close()
        except OSError:
            self.refused += 1
        except asyncio.CancelledError:
            pass  # the end of the test; asyncio would log it as an error of the server
        finally:
            self._tasks.discard(task)
            writer.close()


async def is_ready(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
        return (await reader.readuntil(b"\r\n")).split(b" ")[1] == b"200"
    finally:
        writer.close()


async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
