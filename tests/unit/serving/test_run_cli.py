"""`python -m serving run`: which GPU, which profile, and what stands in the way."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import pytest

from serving import run_cli
from serving.capacity import model
from serving.hardware import Unknown
from tests.support.gpus import FakeNvml, machine


def parsed(*words):
    parser = argparse.ArgumentParser()
    run_cli.add_parser(parser.add_subparsers())
    return parser.parse_args(["run", *words])


@pytest.fixture
def run(monkeypatch):
    """Run the command on a machine with these GPUs; what it would become is kept."""
    monkeypatch.delenv("SERVING_CACHE_DIR", raising=False)
    became = []
    monkeypatch.setattr(run_cli.os, "execvpe", lambda *call: became.append(call))

    def go(*words, kinds=(), extra=(), fault=None, environ=None, bindings=None):
        nvml = FakeNvml(*machine(*kinds), fault=fault)
        code = run_cli.run(
            parsed(*words),
            extra,
            {"SERVING_ENGINE_PYTHON": sys.executable, **(environ or {})},
            bindings or (lambda: nvml),
        )
        return code, became

    return go


@pytest.fixture
def eight(tmp_path):
    """A folder with the 8B's config.json, in bf16."""
    shutil.copy(model.MODELS_DIR / "qwen3-vl-8b.json", tmp_path / "config.json")
    return str(tmp_path)


def test_the_gpu_chooses_the_profile(run, capsys):
    _, [(_, argv, _)] = run("--no-report", kinds=["a100-80"])
    assert "Qwen/Qwen3-VL-8B-Instruct" in argv
    said = capsys.readouterr().err
    assert "serving: profile a100-80, for NVIDIA A100-SXM4-80GB (80 GiB, compute capability 8.0)" in said


def test_it_becomes_vllm_with_the_profiles_flags_and_variables(run):
    _, [(python, argv, env)] = run("--no-report", "--cache-dir", "/cache/", kinds=["h100"])
    assert (python, argv[:3]) == (sys.executable, (sys.executable, "-m", "vllm.entrypoints.openai.api_server"))
    assert env["VLLM_ENGINE_READY_TIMEOUT_S"] == "1200"
    assert env["VLLM_CACHE_ROOT"] == "/cache/h100/vllm"


def test_the_cache_directory_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SERVING_CACHE_DIR", "/cache")
    assert parsed().cache_dir == "/cache"
    assert parsed("--cache-dir", "/other").cache_dir == "/other"


def test_a_wrong_combination_is_78_with_reason_and_nearest(run, eight, capsys):
    code, became = run("--model", eight, kinds=["a10"], extra=("--max-model-len", "65536"))
    assert (code, became) == (78, [])
    said = capsys.readouterr().err
    assert "profile a10 cannot work here:\n  - NVIDIA A10, 24 GB gives vLLM 20.24 GiB" in said
    assert "The nearest that does, the rest as it is: a --model in fp8 --kv-cache-dtype fp8" in said
    assert "\n  or: --max-model-len 15360" in said
    assert said.endswith("--no-check starts it all the same.\n")


def test_where_nothing_is_near_the_reason_stands_alone(run, capsys):
    assert run("--profile", "l4", kinds=["v100"])[0] == 78
    assert "The nearest" not in capsys.readouterr().err


def test_no_check_starts_it_all_the_same(run, eight):
    _, became = run("--no-check", "--no-report", "--model", eight, kinds=["a10"], extra=("--max-model-len", "65536"))
    assert len(became) == 1


def test_a_profile_for_another_gpu_starts_with_a_note(run, capsys):
    _, became = run("--profile", "l4", "--no-report", kinds=["l40s"])
    assert len(became) == 1
    assert "serving: note: profile l4 is not for NVIDIA L40S" in capsys.readouterr().err


def test_without_a_driver_nothing_can_be_chosen(run, capsys):
    assert run(fault="Driver Not Loaded") == (78, [])
    assert "NVML says: Driver Not Loaded. Install NVIDIA's driver" in capsys.readouterr().err


def test_a_gpu_profile_without_a_driver_is_refused(run):
    assert run("--profile", "l4", fault="Driver Not Loaded") == (78, [])


def test_a_named_profile_is_tried_where_nothing_can_be_known(run, capsys):
    def nobody():
        raise Unknown("no way to ask")

    _, became = run("--profile", "l4", "--no-report", bindings=nobody)
    assert len(became) == 1
    assert "note: not checked against the GPU: no way to ask" in capsys.readouterr().err


def test_the_cpu_profile_asks_for_no_gpu(run):
    def nobody():
        raise AssertionError

    code, _ = run("--profile", "cpu", "--print", bindings=nobody)
    assert code == 0


def test_print_works_anywhere_and_tells_what_would_be_refused(run, capsys):
    assert run("--profile", "h100-x4", "--print", kinds=["h100"])[0] == 0
    shown = capsys.readouterr()
    assert "note: this cannot work here: profile h100-x4 with these flags takes 4 GPUs" in shown.err
    assert "--tensor-parallel-size 4" in shown.out
    assert run("--profile", "h100", "--print", fault="Driver Not Loaded")[0] == 0


def test_gpus_that_no_profile_is_for_are_78(run, capsys):
    assert run(kinds=["v100"])[0] == 78
    assert "no profile is for Tesla V100" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_read_is_left_to_vllm(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    assert run_cli.read_checkpoint(str(tmp_path)) is None
    assert run_cli.read_checkpoint("somebody/unknown") is None


def test_a_report_that_cannot_be_written_does_not_stop_the_engine(run, monkeypatch, capsys):
    def full(_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(run_cli.startup, "prepare", full)
    _, became = run(kinds=["l4"])
    assert len(became) == 1
    assert "note: no start-up report, as there is nowhere to write" in capsys.readouterr().err


def test_the_report_is_written_by_a_process_beside_the_engine(run, monkeypatch):
    spawned = []
    monkeypatch.setattr(run_cli.startup, "spawn", spawned.append)
    _, [(_, _, env)] = run("--host", "0.0.0.0", "--port", "8001", kinds=["l4"])
    [watched] = spawned
    assert (watched.profile, watched.host, watched.port) == ("l4", "0.0.0.0", 8001)
    assert env["SERVING_STARTUP_FILE"] == str(watched.file)
    assert Path(env["PYTHONPATH"].split(":")[0], "sitecustomize.py").is_file()
    watched.file.unlink()


def test_an_engine_that_is_no_program_is_126(run, monkeypatch, capsys):
    def broken(*_):
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(run_cli.os, "execvpe", broken)
    assert run("--no-report", kinds=["l4"])[0] == 126
    assert "cannot be executed: Exec format error" in capsys.readouterr().err
