"""A key may be held to some models: it sees and uses those only, whichever way it asks."""

from __future__ import annotations

import base64

import httpx
import openai
import pytest

from gateway import keys_cli
from gateway.keys import read_ring
from tests.support.engine import model_list
from tests.support.gateway import KEY, OTHER_KEY, key_record, write_keys
from tests.support.pictures import png

REQUESTS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"prompt": "a"},
    "/v1/responses": {"input": "a"},
    "/v1/messages": {"max_tokens": 3, "messages": [{"role": "user", "content": "a"}]},
}
EACH = pytest.mark.parametrize("path", REQUESTS)


@pytest.fixture
async def bound(start, tmp_path):
    keys = write_keys(
        tmp_path / "k.json", key_record(KEY, "one", models=["small", "shop:v2"]), key_record(OTHER_KEY, "two")
    )
    return await start(keys_file=keys)


@pytest.fixture
async def http(bound):
    async with httpx.AsyncClient(base_url=bound.url, headers=bound.headers, timeout=10) as client:
        yield client


@EACH
async def test_its_models_are_served(http, engine, path):
    for model in ("small", "shop:v2"):
        assert (await http.post(path, json={**REQUESTS[path], "model": model})).status_code == 200
    assert [sent["model"] for sent in engine.requests] == ["small", "shop:v2"]


@EACH
@pytest.mark.parametrize("model", ["large", "", "Small", 5, ["small"], {"small": 1}])
async def test_any_other_is_not_found(http, engine, path, model):
    response = await http.post(path, json={**REQUESTS[path], "model": model})
    assert response.status_code == 404
    error = response.json()["error"]
    if path == "/v1/messages":
        assert (error["type"], error["message"][:7]) == ("not_found_error", "model: ")
    else:
        assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert engine.requests == []


@EACH
async def test_without_a_model_it_gets_its_first_and_not_the_engine_s(http, engine, path):
    for body in (REQUESTS[path], {**REQUESTS[path], "model": None}):
        assert (await http.post(path, json=body)).status_code == 200
    assert {sent["model"] for sent in engine.requests} == {"small"}


async def test_predict_takes_its_first_model(http, engine):
    body = {"image": base64.b64encode(png()).decode(), "prompt": "What?"}
    assert (await http.post("/predict", json=body)).status_code == 200
    assert engine.requests[0]["model"] == "small"


async def test_the_sdk_raises_not_found(bound):
    async with openai.AsyncOpenAI(base_url=f"{bound.url}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="large", messages=[{"role": "user", "content": "a"}])
    assert caught.value.code == "model_not_found"


async def test_a_key_without_models_may_use_all(bound, engine):
    async with httpx.AsyncClient(base_url=bound.url, headers={"authorization": f"Bearer {OTHER_KEY}"}) as http:
        assert (await http.post("/v1/completions", json={"prompt": "a", "model": "large"})).status_code == 200
    assert engine.requests[0]["model"] == "large"


async def test_the_list_shows_its_models_only(bound, engine):
    engine.models = model_list("small", "large")
    shown = []
    async with httpx.AsyncClient(base_url=bound.url) as http:
        for key in (KEY, OTHER_KEY):
            models = await http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
            shown.append([model["id"] for model in models.json()["data"]])
    assert shown == [["small"], ["small", "large"]]  # and not shop:v2, which the engine has not loaded


class TestKeyFile:
    def create(self, tmp_path, *options):
        from gateway.__main__ import parser

        path = tmp_path / "keys.json"
        args = parser().parse_args(["keys", "create", "--file", str(path), "--tenant", "shop", *options])
        return keys_cli.run(args), path

    def test_the_command_line_writes_what_the_gateway_reads(self, tmp_path, capsys):
        code, path = self.create(tmp_path, "--models", "a, b:v2")
        assert code == 0
        assert read_ring(path).keys[0].models == ("a", "b:v2")

    def test_a_key_without_models_is_written_as_before(self, tmp_path, capsys):
        _, path = self.create(tmp_path)
        assert read_ring(path).keys[0].models == ()

    @pytest.mark.parametrize("models", [",", "a,,b", " "])
    def test_a_list_with_gaps_is_wrong_usage(self, tmp_path, capsys, models):
        with pytest.raises(SystemExit) as caught:
            self.create(tmp_path, "--models", models)
        assert caught.value.code == 2

    @pytest.mark.parametrize("models", [[], "a", [""], [1], ["a\n"], ["x" * 129]])
    def test_a_file_with_other_models_is_refused(self, tmp_path, models):
        from gateway.keys import KeyFileError

        path = write_keys(tmp_path / "k.json", key_record(KEY, "one", models=models))
        with pytest.raises(KeyFileError, match="models"):
            read_ring(path)
