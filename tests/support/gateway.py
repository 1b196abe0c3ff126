"""The gateway on a real socket, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from gateway.app import create_app
from gateway.images.addresses import is_public
from gateway.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fastapi import FastAPI

KEY = "sk-test-one"
OTHER_KEY = "sk-test-two"


def key_record(secret: str, tenant: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"k_{tenant}",
        "tenant": tenant,
        "sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "created": "2026-01-01T00:00:00Z",
        **more,
    }


def write_keys(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": list(records)}))
    path.chmod(0o600)
    return path


SERVER = "gateway.http_server:ServerProtocol"


class Server(uvicorn.Server):
    """uvicorn's, but that it ends when it is told to: uvicorn looks ten times a second, and a run has hundreds of these."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(0.002)
        for server in self.servers:
            await server.wait_closed()
        await self.lifespan.shutdown()


@dataclass
class RunningGateway:
    url: str
    app: FastAPI
    server: Server

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {KEY}"}


@contextlib.asynccontextmanager
async def running(tmp_path: Path, engines: list[str], **settings: Any) -> AsyncIterator[RunningGateway]:
    """The gateway with two tenants' keys, `one` and `two`; `settings` are fields of Settings."""
    if "keys_file" not in settings:
        settings["keys_file"] = write_keys(tmp_path / "keys.json", key_record(KEY, "one"), key_record(OTHER_KEY, "two"))
    settings.setdefault("engine_probe_interval_s", 0)  # probes would be counted among a scripted engine's requests
    policy = settings.pop("image_address_allowed", is_public)
    app = create_app(Settings(engines=tuple(engines), **settings), image_address_allowed=policy)
    async with serving(app) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def serving(app: FastAPI, *, http: str = SERVER, **config: Any) -> AsyncIterator[RunningGateway]:
    """An application on a socket of its own; `http` is uvicorn's protocol, `config` more of its settings."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http=http,
                ws="none",
                lifespan="on",
                proxy_headers=False,
                **config,
            )
        )
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(10):
                while not server.started:
                    if task.done():
                        await task
                        raise RuntimeError("the gateway did not start")
                    await asyncio.sleep(0.005)
            yield RunningGateway(f"http://127.0.0.1:{listener.getsockname()[1]}", app, server)
        finally:
            server.stop.set()
            await task
