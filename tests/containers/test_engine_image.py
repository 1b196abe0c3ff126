"""The CPU engine's image, built and run behind the gateway's: the whole path, in containers."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from serving.demo.questions import ask
from serving.demo.scenes import UNSEEN_SEED, jpeg, scene
from tests.containers.conftest import VERSION
from tests.support.containers import inspected, started
from tests.support.pictures import data_url
from tests.support.ports import free_ports

# Installing vLLM takes minutes, its start some 40 s where nothing else runs.
pytestmark = pytest.mark.timeout(2400)

ENGINE_USER = "2000:0"
READY_DEADLINE_S = 600
WRITABLE = ["--tmpfs", "/cache", "--tmpfs", "/home/serving", "--shm-size", "1g"]


def startup_report(log):
    """The line that `serving run` writes with the first token; None before."""
    lines = [line for line in log.splitlines() if line.startswith('{"event": "startup"')]
    return json.loads(lines[0]) if lines else None


@pytest.fixture
async def engine_container(engine_image):
    [port] = free_ports(1)
    command = ["run", "--profile", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with started(engine_image, *command, options=WRITABLE) as container:
        async with asyncio.timeout(READY_DEADLINE_S):
            # The log is read, not the engine asked: each question would take from its start.
            while (report := startup_report(container.log)) is None:
                assert container.state["Running"], container.log
                await asyncio.sleep(2)
        assert report["ready"], container.log
        yield container, port


async def test_pictures_are_answered_through_both_containers(engine_image, engine_container, start_gateway):
    found = inspected(engine_image)
    assert found["Config"]["User"] == ENGINE_USER
    assert found["Labels"]["org.opencontainers.image.version"] == VERSION
    container, port = engine_container
    gateway = await start_gateway(f"http://127.0.0.1:{port}")
    right = 0
    for seed in range(5):
        picture = scene(UNSEEN_SEED + seed, products=1)
        asked = ask(picture, "product", "en", random.Random(seed))
        response = await gateway.http.post(
            "/predict",
            json={
                "image": data_url(jpeg(picture), "image/jpeg").partition(",")[2],
                "prompt": asked.text,
            },
        )
        assert response.status_code == 200, response.text
        right += response.json()["result"].strip() == asked.answer
    assert right >= 4
    assert await asyncio.to_thread(container.run, "python3", "-m", "serving", "ready", "--port", str(port)) == 0

    container.signal("TERM")
    assert await asyncio.to_thread(container.wait) == 0
