"""The images, built for real once a session; a gateway in a container, with everything that production switches on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from dataclasses import dataclass

import httpx
import pytest

from tests.support import images
from tests.support.containers import ROOT, Container, started
from tests.support.engine import ScriptedEngine
from tests.support.gateway import KEY, key_record, write_keys
from tests.support.ports import free_ports

GATEWAY_USER = 10001
VERSION = "0.0.test"
READY_DEADLINE_S = 60


@pytest.fixture(scope="session")
def revision():
    argv = ["git", "rev-parse", "HEAD"]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


@pytest.fixture(scope="session")
def gateway_image(revision):
    return images.build("gateway/Dockerfile", "qwen3-vl-gateway:test", VERSION=VERSION, REVISION=revision)


@pytest.fixture(scope="session")
def engine_image(revision):
    return images.build("serving/Dockerfile.cpu", "qwen3-vl-engine-cpu:test", VERSION=VERSION, REVISION=revision)


@pytest.fixture
async def engine():
    scripted = await ScriptedEngine().start()
    yield scripted
    await scripted.stop()


@dataclass(frozen=True)
class Gateway:
    """A gateway in a container."""

    container: Container
    http: httpx.AsyncClient
    metrics_url: str


@pytest.fixture
async def start_gateway(gateway_image, tmp_path):
    """Start a gateway's container in front of an engine and wait for it; settings are keywords."""
    async with contextlib.AsyncExitStack() as held:

        async def go(engine_url, *, options=(), user=GATEWAY_USER, **settings):
            port, metrics_port = free_ports(2)
            keys = write_keys(tmp_path / "keys" / "keys.json", key_record(KEY, "one"))
            os.chown(keys, user, 0)
            environ = {
                "GATEWAY_PORT": port,
                "GATEWAY_METRICS_PORT": metrics_port,
                "GATEWAY_ENGINES": engine_url,
                "GATEWAY_KEYS_FILE": "/keys/keys.json",
                **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()},
            }
            mounts = [f"--volume={keys.parent}:/keys:ro", *options]
            container = held.enter_context(
                started(gateway_image, environ={name: str(value) for name, value in environ.items()}, options=mounts)
            )
            http = await held.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {KEY}"}, timeout=60
                )
            )
            await _until_ready(container, http)
            return Gateway(container, http, f"http://127.0.0.1:{metrics_port}/metrics")

        (tmp_path / "keys").mkdir()
        yield go


async def _until_ready(container, http):
    async with asyncio.timeout(READY_DEADLINE_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get("/readyz")).status_code == 200:
                    return
            assert container.state["Running"], container.log
            await asyncio.sleep(0.2)
