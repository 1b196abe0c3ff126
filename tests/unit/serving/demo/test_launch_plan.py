from __future__ import annotations

import hashlib
import json
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.demo import launch_plan
from serving.demo.launch_plan import Ports

PORTS = Ports(1080, 1090, 1000)


def test_the_demo_key_is_kept_as_a_hash_and_good_from_loopback_only():
    document = launch_plan.keys_document(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    (entry,) = document["keys"]
    assert entry["sha256"] == hashlib.sha256(b"sk-demo").hexdigest()
    assert entry["cidrs"] == ["127.0.0.0/8", "::1/128"]
    assert entry["created"] == "2026-01-02T03:04:05+00:00"
    assert "sk-demo" not in json.dumps(document)


def test_the_engine_runs_the_cpu_profile_on_loopback():
    words = " ".join(launch_plan.engine_argv(PORTS))
    assert words.endswith("-m serving run --profile cpu --host 127.0.0.1 --port 1000")
    assert launch_plan.engine_env({"A": "1"}, "secret") == {"A": "1", "VLLM_API_KEY": "secret"}


def test_the_gateway_hears_nothing_of_another_gateways_settings():
    env = launch_plan.gateway_env({"PATH": "/bin", "GATEWAY_REDIS_URL": "redis://x"}, PORTS, Path("keys"), "secret")
    assert env["PATH"] == "/bin"
    assert "GATEWAY_REDIS_URL" not in env
    assert env["GATEWAY_ENGINES"] == "http://127.0.0.1:1000"
    assert env["GATEWAY_HOST"] == "127.0.0.1"
    assert env["GATEWAY_ALLOWED_CIDRS"] == "127.0.0.0/8,::1/128"
    assert (env["GATEWAY_PORT"], env["GATEWAY_METRICS_PORT"], env["GATEWAY_KEYS_FILE"]) == ("1080", "1090", "keys")


@pytest.mark.parametrize(
    ("log", "stage"),
    [
        ("", None),
        ("(APIServer pid=1) INFO non-default args: {}", "reading the checkpoint"),
        ("non-default args: {}\nResolved architecture: Qwen3VL", "starting the engine's core process"),
        ("Starting to load model x\nCPU KV cache size: 9 tokens", "warming up"),
    ],
)
def test_the_log_tells_how_far_the_engine_is(log, stage):
    assert launch_plan.engine_stage(log) == stage


def test_the_curl_line_is_one_command_with_a_json_body():
    words = shlex.split(launch_plan.curl_line(PORTS, "a.jpg").replace("$(base64 -w0 a.jpg)", "QUJD"))
    assert words[0] == "curl"
    assert json.loads(words[-1]) == {"image": "QUJD", "prompt": "What is in the picture?"}


def test_the_python_snippet_is_a_program():
    lines = launch_plan.python_snippet(PORTS, "m", "a.jpg").splitlines()
    assert lines[0].endswith("- <<'END'")
    assert lines[-1] == "END"
    compile("\n".join(lines[1:-1]), "snippet", "exec")


def test_clients_call_the_model_what_the_profile_calls_it():
    assert launch_plan.model_name() == "qwen3-vl-demo"
