"""Of everything that the installed vLLM serves, only what the gateway names can be reached through it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from gateway.routes import ROUTES
from tests.support.gateway import KEY, running

ROOT = Path(__file__).parents[2]
A_PATH = re.compile(r"/[A-Za-z0-9_][\w{}:/.-]*")
OWN = {"/health", "/healthz", "/readyz", "/docs", "/openapi.json"}
"""The gateway's, of the same name as the engine's or not."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def paths_of_vllm():
    """Every text in vLLM's entry points that could be a route: more than there are, so that none is missed."""
    (package,) = (ROOT / ".venv-engine").glob("lib/python3*/site-packages/vllm")
    found = set()
    for file in (package / "entrypoints").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and A_PATH.fullmatch(node.value):
                found.add(re.sub(r"\{.*?\}", "x", node.value))
    return found


@pytest.fixture
async def everything():
    """An engine that has every path there is."""
    asked = []

    async def answer(request):
        asked.append(request.path)
        return web.json_response({"choices": [], "data": []})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


async def test_no_other_route_of_vllm_is_reachable(tmp_path, everything):
    url, asked = everything
    paths = paths_of_vllm()
    known = {"/invocations", "/tokenize", "/v1/messages/count_tokens", "/v1/responses/x/cancel", "/v1/embeddings"}
    known |= {"/scale_elastic_ep", "/collective_rpc", "/v1/load_lora_adapter", "/v1/chat/completions/batch", "/ping"}
    assert known | {path for path in ROUTES if path != "/predict"} <= paths, "the search for routes misses some"
    variants = {f"{path}/" for path in ROUTES} | {f"/{path}" for path in ROUTES} | {path.upper() for path in ROUTES}
    variants |= {
        "/v1/chat/../../tokenize",
        "/v1/%2e%2e/tokenize",
        "/v1/models/x",
        "/v1/responses%2Fx",
        "/v1/messages;x",
    }
    async with (
        running(tmp_path, [url]) as gateway,
        httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        for path in sorted((paths | variants) - ROUTES.keys() - OWN):
            for method in METHODS if path in known else ("GET", "POST"):
                response = await http.request(method, gateway.url + path, content=b"{}")
                assert response.status_code in {404, 405}, (method, path, response.text)
        for path in ROUTES:
            for method in {*METHODS} - {"GET" if path == "/v1/models" else "POST"}:
                assert (await http.request(method, gateway.url + path, content=b"{}")).status_code == 405
        assert asked == []
        await http.get(gateway.url + "/v1/models")
    assert asked == ["/v1/models"]  # had anything got through, it would have been seen
