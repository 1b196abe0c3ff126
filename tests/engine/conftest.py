"""One demo for the whole session: real vLLM with the demo checkpoint, the gateway in front, as `make demo` starts it."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import openai
import psutil
import pytest

from tests.support.demo import started
from tests.support.gateway import running


@pytest.fixture(scope="session")
def demo():
    with started() as running_demo:
        yield running_demo.wait_ready()


@pytest.fixture
def client(demo):
    with openai.OpenAI(base_url=demo.base_url, api_key="sk-demo", max_retries=0, timeout=60) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def engine_key(demo):
    """The demo's engine expects a key that only its gateway knows; its process's environment has it."""
    for process in demo.family():
        with contextlib.suppress(psutil.Error):
            if key := process.environ().get("VLLM_API_KEY"):
                return key
    raise AssertionError("no process of the demo has the engine's key")


@pytest.fixture
async def gateway_with(tmp_path, demo, engine_key):
    """A second gateway in this process, in front of the demo's engine, with settings of the test's own."""
    async with contextlib.AsyncExitStack() as held:

        async def go(**settings):
            gateway = await held.enter_async_context(
                running(tmp_path, [demo.engine_url], engine_api_key=engine_key, **settings)
            )
            return SimpleNamespace(base_url=f"{gateway.url}/v1", gateway=gateway)

        yield go
