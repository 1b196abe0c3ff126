"""`python -m serving plan`, as its user sees it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving import plan_cli, profile
from serving.capacity import gpus, model

ROOT = Path(__file__).parents[3]
ISSUE = (
    *("--gpu", "a10", "--checkpoint", "fp8", "--context", "16384", "--image-pixels", "262144"),
    *("--requests-per-second", "5", "--output-tokens", "128"),
)


def parse(*words):
    parser = argparse.ArgumentParser(prog="python -m serving")
    plan_cli.add_parser(parser.add_subparsers(dest="command", required=True))
    return parser.parse_args(["plan", *words])


def plan(*words):
    return plan_cli.run(parse(*words))


@pytest.fixture
def config(tmp_path):
    """A writable copy of the 8B's config.json."""

    def write(**changes):
        content = json.loads((model.MODELS_DIR / "qwen3-vl-8b.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(content | changes))
        return str(tmp_path)

    return write


def test_it_answers_in_under_two_seconds_without_torch_or_vllm():
    code = (
        "import argparse, sys; from serving import plan_cli; top = argparse.ArgumentParser();"
        "plan_cli.add_parser(top.add_subparsers()); code = plan_cli.run(top.parse_args(sys.argv[1:]));"
        "print({'torch', 'vllm', 'transformers'} & set(sys.modules)); sys.exit(code)"
    )
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code, "plan", *ISSUE, "--explain"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert time.monotonic() - began < 2
    assert run.stdout.endswith("set()\n")


def test_it_is_a_command_of_serving():
    run = subprocess.run(
        [sys.executable, "-m", "serving", "plan", *ISSUE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "GPUs needed" in run.stdout


def test_the_table_shows_every_figure_and_what_it_rests_on(capsys):
    assert plan(*ISSUE) == 0
    shown = capsys.readouterr().out
    for words in (
        "qwen3-vl-8b (fp8) on 1 x NVIDIA A10, 24 GB, context 16,384: 5 requests/s",
        "8,767,123,696",
        "147,456 B",
        "computed, not measured",
        "exact",
        "GPUs needed",
        "Sustainable throughput",
        "has no FP8 arithmetic",
        "Decoding pictures on the CPU is not in it",
    ):
        assert words in shown
    assert "smart_resize" not in shown


def test_explain_adds_formula_and_source(capsys):
    assert plan(*ISSUE, "--explain") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "36 layers x 8 KV heads x 2 x 128 x 2 B" in shown
    assert "kv_cache_interface.py" in shown


def test_json_holds_the_question_the_figures_and_their_sources(capsys):
    assert plan(*ISSUE, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fits"] is True
    assert document["asked"]["gpu"] == "a10"
    assert document["asked"]["image"] == "512x512"
    assert document["asked"]["max_requests"] == 32  # the profile's
    figure = document["figures"]["parameters"]
    assert figure["value"] == 8_767_123_696
    assert figure["basis"] == "exact"
    assert figure["source"].startswith("transformers/")


def test_an_impossible_plan_exits_with_1_the_reason_and_the_nearest_that_works(capsys):
    assert plan("--gpu", "a10", "--checkpoint", "bf16", "--context", "65536") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "This cannot work" in err
    assert "65,536 tokens takes 9.00 GiB" in err
    assert "The nearest that does, the rest as asked: --checkpoint fp8 --kv-dtype fp8" in err
    assert "or: --gpus-per-engine 2" in err


def test_an_impossible_plan_in_json_is_json_and_exits_with_1(capsys):
    assert plan("--gpu", "t4", "--checkpoint", "bf16", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["fits"] is False
    assert "bfloat16 needs 8.0" in document["reasons"][0]
    assert document["alternatives"][0] == "--dtype half --checkpoint fp8"
    assert document["figures"] == {}


def test_a_plan_that_nothing_can_save_says_so(capsys):
    assert plan("--gpu", "h100", "--context", "300000", "--output-tokens", "400000") == 1
    assert "Nothing near it works" in capsys.readouterr().err


def test_bf16_on_a_t4_works_only_as_half_and_says_so(capsys):
    words = ("--gpu", "t4", "--checkpoint", "bf16", "--model", "qwen3-vl-2b")
    assert plan(*words) == 1
    assert plan(*words, "--dtype", "half") == 0
    assert "has no bfloat16: start vLLM with --dtype half" in capsys.readouterr().out


def test_a_tight_plan_says_so(capsys):
    assert plan("--gpu", "l4", "--checkpoint", "fp8", "--context", "65536") == 0
    assert "less than the estimate may be wrong" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(gpus.table()))
def test_every_gpu_has_a_plan_with_nothing_else_said(name, capsys):
    assert plan("--gpu", name) == 0
    assert "GPUs needed" in capsys.readouterr().out


def test_options_win_over_the_profile():
    question = plan_cli.question_of(
        parse(
            *("--gpu", "a10", "--max-num-seqs", "3", "--max-num-batched-tokens", "1024", "--kv-dtype", "fp8"),
            *("--gpu-memory-utilization", "0.8", "--gpus-per-engine", "2", "--images", "2", "--prompt-tokens", "9"),
        )
    )
    engine = question.engine
    assert (engine.max_requests, engine.max_batched_tokens, engine.kv_dtype) == (3, 1024, "fp8")
    assert (engine.memory_utilization, engine.gpus_per_engine) == (0.8, 2)
    assert question.input_tokens == 9 + 2 * (256 + 2)


def test_the_profile_for_as_many_gpus_is_preferred(monkeypatch):
    made = {
        "a100-80": profile.Profile("a100-80", "", None, {"max-model-len": 1}, {}),
        "a100-80-x2": profile.Profile("a100-80-x2", "", None, {"max-model-len": 2, "tensor-parallel-size": 2}, {}),
        "cpu": profile.Profile("cpu", "", None, {}, {}),
    }
    monkeypatch.setattr(plan_cli.profile, "names", lambda: tuple(sorted(made)))
    monkeypatch.setattr(plan_cli.profile, "load", made.__getitem__)
    contexts = {
        count: plan_cli.question_of(parse("--gpu", "a100-80", "--gpus-per-engine", count)).engine.context_tokens
        for count in ("1", "2", "4")
    }
    assert contexts == {"1": 1, "2": 2, "4": 1}


def test_a_checkpoints_own_precision_is_taken_from_its_config(config):
    path = config(quantization_config={"quant_method": "fp8"})
    assert plan_cli.question_of(parse("--gpu", "a100-80", "--model", path)).engine.checkpoint == "fp8"


def test_a_checkpoint_of_ones_own_that_says_nothing_is_bf16_unless_asked_otherwise(config):
    words = ("--gpu", "a10", "--model", config())
    assert plan_cli.question_of(parse(*words)).engine.checkpoint == "bf16"
    assert plan_cli.question_of(parse(*words, "--checkpoint", "fp8")).engine.checkpoint == "fp8"


def test_a_checkpoint_that_contradicts_the_config_is_refused(config, capsys):
    path = config(quantization_config={"quant_method": "fp8"})
    assert plan("--gpu", "a10", "--model", path, "--checkpoint", "w4a16") == 78
    assert "is quantized to fp8" in capsys.readouterr().err


def test_a_quantization_that_is_not_computed_is_refused(config, capsys):
    assert plan("--gpu", "a10", "--model", config(quantization_config={"quant_method": "awq"})) == 78
    assert "'awq' is not computed" in capsys.readouterr().err


def test_a_model_that_does_not_exist_exits_with_78(capsys):
    assert plan("--gpu", "a10", "--model", "nowhere") == 78
    assert "there is no model 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpu", "a11"), "invalid choice"),
        ((), "--gpu"),
        (("--gpu", "a10", "--context", "0"), "at least 1"),
        (("--gpu", "a10", "--context", "-1"), "is no number"),
        (("--gpu", "a10", "--images", "some"), "is no number"),
        (("--gpu", "a10", "--requests-per-second", "0"), "more than 0"),
        (("--gpu", "a10", "--requests-per-second", "inf"), "more than 0"),
        (("--gpu", "a10", "--requests-per-second", "few"), "is no number"),
        (("--gpu", "a10", "--gpu-memory-utilization", "1.1"), "at most 1"),
        (("--gpu", "a10", "--image-pixels", "huge"), "is no picture"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_the_fault(words, said, capsys):
    with pytest.raises(SystemExit) as exit_info:
        parse(*words)
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err


def test_no_pictures_is_a_load_too():
    assert plan_cli.question_of(parse("--gpu", "a10", "--images", "0")).input_tokens == 64
