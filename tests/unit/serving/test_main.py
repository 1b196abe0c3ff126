from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving import __main__ as cli
from serving import profile, run_cli

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return str(tmp_path / "model")


@pytest.fixture
def fake_engine(tmp_path):
    """An executable that stands where the engine's Python would, with a body in sh."""

    def write(body):
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
        return {**os.environ, "SERVING_ENGINE_PYTHON": str(file)}

    return write


def serving(*words, env=None):
    return subprocess.run(
        [sys.executable, "-m", "serving", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_print_shows_the_command_one_flag_a_line(capsys):
    assert cli.main(["run", "--profile", "l4", "--print", "--", "--seed", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].strip() == "--seed 7"
    assert "  --max-model-len 16384 \\" in lines


def test_run_becomes_the_engine_and_its_exit_code_is_the_engines(fake_engine, checkpoint):
    done = serving("run", "--profile", "cpu", "--model", checkpoint, env=fake_engine('echo "$@"; env; exit 42'))
    assert done.returncode == 42
    assert f"-m vllm.entrypoints.openai.api_server --model {checkpoint} --host 127.0.0.1" in done.stdout
    assert "VLLM_MEDIA_URL_ALLOW_REDIRECTS=0\n" in done.stdout


def test_signals_reach_the_engine(fake_engine, checkpoint):
    env = fake_engine("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
    argv = [sys.executable, "-m", "serving", "run", "--profile", "cpu", "--model", checkpoint]
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 7


def test_an_engine_that_is_not_installed_is_127(tmp_path, checkpoint):
    env = {**os.environ, "SERVING_ENGINE_PYTHON": str(tmp_path / "nowhere")}
    done = serving("run", "--profile", "cpu", "--model", checkpoint, env=env)
    assert done.returncode == 127
    assert "run `make engine`" in done.stderr


def test_an_engine_that_cannot_be_executed_is_126(tmp_path, checkpoint):
    (tmp_path / "python").write_text("")
    env = {**os.environ, "SERVING_ENGINE_PYTHON": str(tmp_path / "python")}
    done = serving("run", "--profile", "cpu", "--model", checkpoint, env=env)
    assert done.returncode == 126
    assert "cannot be executed: Permission denied" in done.stderr


def test_a_folder_that_is_no_checkpoint_is_78(tmp_path, capsys):
    assert cli.main(["run", "--profile", "cpu", "--model", str(tmp_path)]) == 78
    assert "has no config.json" in capsys.readouterr().err


def test_a_profile_without_a_checkpoint_is_78(capsys):
    assert cli.main(["run", "--profile", "t4", "--no-check"]) == 78
    assert "with --model" in capsys.readouterr().err


def test_a_faulty_profile_is_78(monkeypatch, tmp_path, capsys):
    (tmp_path / "x.toml").write_text("title = ")
    monkeypatch.setattr(profile.load, "__defaults__", (tmp_path,))
    monkeypatch.setattr(profile.names, "__defaults__", (tmp_path,))
    assert cli.main(["run", "--profile", "x"]) == 78
    assert "x.toml is no TOML" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ready", "--wait-s", "-1"],
        ["run", "--profile", "gpu9"],
        ["demo", "--", "--seed", "1"],
        ["demo", "--port", "65536"],
    ],
)
def test_a_wrong_command_line_is_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help_tells_exit_codes_and_profiles(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = capsys.readouterr().out
    assert "127  the engine is not installed" in text
    assert "NVIDIA L4, 24 GB" in text


def test_the_engines_python_is_the_chosen_one_else_this_one_else_the_engine_environment(monkeypatch, tmp_path):
    assert run_cli.engine_python({"SERVING_ENGINE_PYTHON": "/x/python"}) == "/x/python"
    monkeypatch.setattr(run_cli.importlib.util, "find_spec", lambda _: None)
    assert run_cli.engine_python({}, tmp_path) == str(tmp_path / ".venv-engine/bin/python")
    monkeypatch.setattr(run_cli.importlib.util, "find_spec", lambda _: object())
    assert run_cli.engine_python({}, tmp_path) == sys.executable


def test_demo_hands_its_options_to_the_launcher(monkeypatch):
    from serving.demo import launch

    called = []
    monkeypatch.setattr(launch, "main", lambda ports, **options: called.append((ports, options)) or 5)
    assert cli.main(["demo", "--exit", "--port", "1", "--metrics-port", "2", "--engine-port", "3", "--seed", "4"]) == 5
    assert called == [(launch.Ports(1, 2, 3), {"stop_after_answers": True, "seed": 4})]


@pytest.mark.parametrize(
    "words",
    [("plan", "--gpu", "l4", "--json"), ("plan", "--gpu", "l4"), ("run", "--profile", "l4", "--print"), ("ready",)],
)
def test_a_reader_that_has_gone_ends_it_without_a_traceback(words):
    argv = [sys.executable, "-m", "serving", *words]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
        code = process.wait(timeout=30)
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert code != 0


def test_a_reader_that_has_gone_is_told_apart_in_the_exit_code():
    argv = [sys.executable, "-m", "serving", "plan", "--gpu", "l4", "--json"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == cli.EX_NO_READER == 141
