"""The Dockerfiles of the gateway and the CPU engine, as far as they can be checked without building (`make images` does)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GATEWAY, CPU, GPU = "gateway/Dockerfile", "serving/Dockerfile.cpu", "serving/Dockerfile"
BASE = "python:3.11-slim@${PYTHON_DIGEST}"


def all_of(dockerfile, word):
    """What follows a word at the beginning of instructions, comments and line breaks taken out."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", (ROOT / dockerfile).read_text()))
    return [re.sub(r"\s+", " ", found) for found in re.findall(rf"(?m)^{word} +(.*)$", text)]


@pytest.mark.parametrize("dockerfile", [GATEWAY, CPU])
def test_hadolint_finds_nothing(dockerfile):
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint, "hadolint is not installed: run make setup"
    argv = [hadolint, "--no-color", "--failure-threshold", "style", str(ROOT / dockerfile)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dockerfile", [GATEWAY, CPU])
def test_both_stages_have_the_base_whose_digest_must_be_given(dockerfile):
    assert all_of(dockerfile, "FROM") == [f"{BASE} AS packages", BASE]
    assert all_of(dockerfile, "ARG") == ["PYTHON_DIGEST", "VERSION=", "REVISION="]


@pytest.mark.parametrize("dockerfile", [GATEWAY, CPU])
def test_no_index_and_no_secret_is_written_down(dockerfile):
    text = (ROOT / dockerfile).read_text()
    assert not re.search(r"index-url|INDEX_URL|trusted-host|find-links|https?://(?!engine:)", text)
    assert "--mount=type=secret,id=pip,target=/etc/pip.conf" in text


@pytest.mark.parametrize(("dockerfile", "user"), [(GATEWAY, "10001:10001"), (CPU, "2000:0")])
def test_the_user_is_a_number_that_is_not_root(dockerfile, user):
    assert all_of(dockerfile, "USER") == [user]


def test_the_gateway_s_packages_come_by_hash_and_only_pyvips_is_built():
    [run] = [found for found in all_of(GATEWAY, "RUN") if "pip" in found]
    assert run.count("--require-hashes") == 2
    assert run.count("--only-binary :all:") == 2
    assert "--no-binary pyvips " in run
    assert "--no-build-isolation" in run


@pytest.mark.parametrize("word", ["USER", "WORKDIR", "VOLUME", "EXPOSE", "ENTRYPOINT"])
def test_one_pod_specification_fits_both_engines(word):
    assert all_of(CPU, word)[-1] == all_of(GPU, word)[-1]


def test_both_engines_write_to_the_same_places():
    variables = [dict(pair.split("=", 1) for pair in all_of(file, "ENV")[0].split()) for file in (CPU, GPU)]
    assert variables[1].items() <= variables[0].items()


def copied(dockerfile, folder):
    """What COPY of a folder brings, by the rules of its .dockerignore."""
    lines = [line for line in (ROOT / f"{dockerfile}.dockerignore").read_text().splitlines() if line[0] != "#"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    kept = []
    for name in tracked.stdout.splitlines():
        ignored = False
        for line in lines:
            pattern = line.removeprefix("!")
            regex = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if re.match(rf"{regex}(/|$)", name):
                ignored = not line.startswith("!")
        if not ignored and name.startswith(f"{folder}/"):
            kept.append(name)
    return kept


@pytest.mark.parametrize(
    ("dockerfile", "folder", "argv", "said"),
    [
        (GATEWAY, "gateway", ["-m", "gateway", "--help"], "run the gateway"),
        (GATEWAY, "gateway", ["-c", "import gateway.app, gateway.serve; print('whole')"], "whole"),
        (CPU, "serving", ["-m", "serving", "run", "--profile", "cpu", "--print"], "/serving/demo/checkpoint"),
        (CPU, "serving", ["-m", "serving", "ready", "--help"], "ask again so long"),
        (CPU, "serving", ["-m", "serving", "fetch", "--help"], "Safe to kill at any moment"),
        (CPU, "serving", ["-m", "serving.engine.install", "--help"], "--torch-index"),
    ],
)
def test_what_is_copied_is_enough(tmp_path, dockerfile, folder, argv, said):
    for name in copied(dockerfile, folder):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_nothing_else_is_copied():
    assert not copied(GATEWAY, "tests") + copied(CPU, "tests") + copied(GATEWAY, "serving")
    assert copied(GATEWAY, "requirements") == ["requirements/build.lock", "requirements/gateway.lock"]
    assert copied(CPU, "requirements") == ["requirements/engine.lock"]
    demo = [name for name in copied(CPU, "serving") if name.startswith("serving/demo/")]
    assert demo
    assert {Path(name).parent.name for name in demo} == {"checkpoint"}
