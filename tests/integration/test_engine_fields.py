"""What of a request controls the engine stays here: vLLM 0.32's fields and headers, each by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from gateway.upstream.probe import TOKENS
from tests.support.pictures import data_url, png, question

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
VLLM = ROOT / ".venv-engine" / "lib" / "python3.11" / "site-packages" / "vllm"

REFUSED = {
    "guided_json": {},
    "guided_regex": "a",
    "guided_choice": ["a"],
    "guided_grammar": "a",
    "guided_decoding_backend": "x",
    "guided_whitespace_pattern": "a",
    "mm_processor_kwargs": {"size": {"longest_edge": 1 << 30}},
    "media_io_kwargs": {"video": {"num_frames": 10**6}},
    "kv_transfer_params": {"remote_host": "10.0.0.1"},
    "ec_transfer_params": {"remote_host": "10.0.0.1"},
    "prompt_embeds": "AAAA",
    "vllm_xargs": {"session_id": "theirs"},
    "chat_template": "{{ messages }}",
    "watermarking": False,
}
DROPPED = {"cache_salt": "theirs", "priority": -9, "request_id": "x", "session_id": "theirs"}
HEADERS = {
    "X-Request-Id": "theirs",
    "X-data-parallel-rank": "1",
    "X-Session-ID": "theirs",
    "X-Vllm-Priority": "-9",
    "endpoint-load-metrics-format": "json",
    "Cookie": "a=b",
    "X-Forwarded-For": "10.0.0.1",
    "Forwarded": "for=10.0.0.1",
}

OWN_ANSWER = """messages model prompt frequency_penalty logit_bias logprobs top_logprobs max_tokens max_completion_tokens n
presence_penalty response_format seed stop stream stream_options temperature top_p tools tool_choice reasoning_effort
thinking_token_budget include_reasoning parallel_tool_calls user use_beam_search top_k min_p repetition_penalty
length_penalty stop_token_ids include_stop_str_in_output ignore_eos min_tokens skip_special_tokens
spaces_between_special_tokens truncate_prompt_tokens truncation_side prompt_logprobs logprob_token_ids
allowed_token_ids bad_words echo suffix structured_outputs repetition_detection stream_interval
return_tokens_as_token_ids return_token_ids return_prompt_text"""
OWN_PROMPT = "add_generation_prompt continue_final_message add_special_tokens documents chat_template_kwargs"
WITHOUT_EFFECT = "routed_experts_prompt_start return_token_offsets mm_payload return_mm_kwargs"
HARMLESS = frozenset(f"{OWN_ANSWER} {OWN_PROMPT} {WITHOUT_EFFECT}".split())


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
async def test_a_field_of_the_operator_s_is_refused_by_name(http, engine, name, value):
    response = await http.post(CHAT, json=question(data_url(png()), **{name: value}))
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", name)
    assert engine.requests == []


async def test_a_template_does_not_slip_in_among_its_arguments(http, engine):
    body = question(data_url(png()), chat_template_kwargs={"enable_thinking": False})
    assert (await http.post(CHAT, json=body)).status_code == 200
    assert engine.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
    body["chat_template_kwargs"]["chat_template"] = "{{ messages }}"
    error = (await http.post(CHAT, json=body)).json()["error"]
    assert error["param"] == "chat_template_kwargs.chat_template"
    assert len(engine.requests) == 1


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_what_the_gateway_decides_is_dropped(http, engine, path):
    prompt = {"messages": [{"role": "user", "content": "x"}]} if path == CHAT else {"prompt": "x"}
    assert (await http.post(path, json=prompt | DROPPED)).status_code == 200
    sent = engine.requests[0]
    assert sent.pop("cache_salt") != "theirs"
    assert not sent.keys() & DROPPED.keys()


async def test_a_picture_is_named_by_the_gateway_alone(http, engine):
    body = question(data_url(png()))
    body["messages"][0]["content"][0]["uuid"] = "theirs"
    body["messages"][0]["content"][0]["image_url"]["uuid"] = "theirs"
    await http.post(CHAT, json=body)
    assert "theirs" not in str(engine.requests)


async def test_no_header_of_the_client_s_reaches_the_engine(http, engine):
    response = await http.post(CHAT, json=question(data_url(png())), headers=HEADERS)
    sent = {name.lower(): value for name, value in engine.headers[0].items()}
    assert sent["x-request-id"] == response.headers["x-request-id"] != "theirs"
    assert not sent.keys() & ({name.lower() for name in HEADERS} - {"x-request-id"} | {"authorization"})


@pytest.mark.parametrize(
    ("file", "model"),
    [("chat_completion/protocol.py", "ChatCompletionRequest"), ("completion/protocol.py", "CompletionRequest")],
)
def test_every_field_of_the_pinned_vllm_has_been_looked_at(file, model):
    tree = ast.parse((VLLM / "entrypoints" / "openai" / file).read_text())
    [definition] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == model]
    fields = {node.target.id for node in definition.body if isinstance(node, ast.AnnAssign)}
    fields = {name for name in fields if not name.startswith("_")}
    assert len(fields) > 40
    assert fields - HARMLESS - REFUSED.keys() - DROPPED.keys() == set()


def test_the_counters_by_which_a_busy_engine_is_told_from_a_hung_one_are_vllm_s():
    source = (VLLM / "v1" / "metrics" / "loggers.py").read_text()
    for name in ("generation_tokens", "prompt_tokens"):
        assert f'name="vllm:{name}"' in source
        assert TOKENS.findall(f'vllm:{name}_total{{engine="0",model_name="m"}} 1.5e+06\n'.encode()) == [b"1.5e+06"]
