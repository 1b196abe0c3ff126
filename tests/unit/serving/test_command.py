from __future__ import annotations

import shlex

import pytest

from serving import command, profile


def build(name="cpu", inherited=None, **asked):
    return command.build(
        profile.load(name), command.Request(**asked), python="/venv/bin/python", root="/srv/stack", inherited=inherited
    )


@pytest.mark.parametrize("name", profile.names())
def test_the_command_of_each_profile(name, golden):
    asked = {} if profile.load(name).model else {"model": "/models/qwen3-vl-8b-w4a16"}
    golden(f"{name}.txt", build(name, **asked).render() + "\n")


def test_what_the_operator_asks_for_wins():
    argv = build(
        "l4",
        model="/models/mine",
        host="0.0.0.0",
        port=9000,
        served_model_names=("a", "b"),
        extra=("--max-num-seqs", "1"),
    ).argv
    assert argv[:3] == ("/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server")
    assert argv[3:9] == ("--model", "/models/mine", "--host", "0.0.0.0", "--port", "9000")
    at = argv.index("--served-model-name")
    assert argv[at + 1 : at + 3] == ("a", "b")
    assert argv.count("--served-model-name") == 1
    assert argv[-2:] == ("--max-num-seqs", "1")


def test_a_variable_that_is_set_already_is_left_alone():
    assert "HF_HUB_OFFLINE" not in build(inherited={"HF_HUB_OFFLINE": "0"}).env
    assert build(inherited={}).env["HF_HUB_OFFLINE"] == "1"


def test_a_model_path_from_the_root_becomes_absolute_and_others_stay():
    assert command.located("./serving/demo/checkpoint", "/srv/stack/") == "/srv/stack/serving/demo/checkpoint"
    assert command.located("/models/x", "/srv") == "/models/x"
    assert command.located("Qwen/Qwen3-VL-8B-Instruct", "/srv") == "Qwen/Qwen3-VL-8B-Instruct"


def test_only_a_path_is_looked_for_on_the_disk():
    assert command.local_path(build().argv) == "/srv/stack/serving/demo/checkpoint"
    assert command.local_path(build("h100").argv) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, ["--x"]),
        (False, ["--no-x"]),
        (0.9, ["--x", "0.9"]),
        ("half", ["--x", "half"]),
        (["a", 1], ["--x", "a", "1"]),
        ({"size": {"a": 1}}, ["--x", '{"size":{"a":1}}']),
    ],
)
def test_a_value_becomes_words_as_vllm_reads_them(value, words):
    assert command.flag_words("x", value) == words


def test_rendered_commands_survive_a_shell():
    invocation = build(extra=("--chat-template", "it's here"))
    words = shlex.split(invocation.render().replace("\\\n", ""))
    assert tuple(words[len(invocation.env) :]) == invocation.argv
    assert dict(word.split("=", 1) for word in words[: len(invocation.env)]) == dict(invocation.env)


def test_a_profile_without_a_checkpoint_asks_for_one():
    with pytest.raises(command.CommandError, match=r"t4 names no checkpoint .* with --model"):
        build("t4")


@pytest.mark.parametrize("words", [("--api-key", "secret"), ("--api-key=secret",), ("--api_key", "secret")])
def test_a_secret_on_the_command_line_is_refused_without_repeating_it(words):
    with pytest.raises(command.CommandError, match="VLLM_API_KEY") as caught:
        build(extra=words)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", command.FORBIDDEN_VARIABLES)
def test_an_environment_that_opens_the_engine_is_refused(name):
    with pytest.raises(command.CommandError, match=f"{name} is set, and .*: unset it"):
        build(inherited={name: "1"})
    build(inherited={name: "0"})


@pytest.mark.parametrize("model", ["s3://models/qwen3-vl-8b", "GS://models/x", "az://models/x"])
def test_a_checkpoint_in_object_storage_is_streamed(model):
    assert build("l4", model=model).render().count("--load-format runai_streamer") == 1


def test_another_format_may_be_asked_for():
    argv = build("l4", model="s3://models/x", load_format="runai_streamer_sharded").argv
    assert argv[argv.index("--load-format") + 1] == "runai_streamer_sharded"
    assert argv.count("--load-format") == 1


def test_a_checkpoint_on_the_disk_is_loaded_as_vllm_likes():
    assert "--load-format" not in build("l4", model="/models/x").argv


@pytest.mark.parametrize("model", ["Qwen/Qwen3-VL-8B-Thinking-FP8", "/models/qwen3-vl-8b-thinking/"])
def test_thoughts_of_a_thinking_checkpoint_are_kept_apart(model):
    argv = build("l4", model=model).argv
    assert argv[argv.index("--reasoning-parser") + 1] == "qwen3"


@pytest.mark.parametrize("model", ["Qwen/Qwen3-VL-8B-Instruct", "/thinking/qwen3-vl-8b"])
def test_an_instruct_checkpoint_gets_no_reasoning_parser(model):
    assert "--reasoning-parser" not in build("l4", model=model).argv


def test_compiled_code_is_kept_for_each_profile():
    env = build("l4", cache_dir="/cache/").env
    assert {env[name] for name in command.CACHES} == {
        f"/cache/l4/{name}" for name in ("vllm", "inductor", "triton", "flashinfer", "cuda")
    }
    assert "VLLM_CACHE_ROOT" not in build("l4").env
    assert "VLLM_CACHE_ROOT" not in build("l4", cache_dir="/cache", inherited={"VLLM_CACHE_ROOT": "/mine"}).env


def test_a_node_without_an_api_runs_the_one_module_that_knows_how():
    argv = build("h100-x4", extra=("--nnodes", "2", "--node-rank", "1", "--headless")).argv
    assert argv[1:5] == ("-m", "vllm.entrypoints.cli.main", "serve", "--model")
