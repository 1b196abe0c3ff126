"""Every environment's values, deployed by the script that deploys: its own command line, given to the real helm."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from tests.support import chart
from tests.workflows.cluster import FLAGS, Cluster

ENVIRONMENTS = sorted((chart.ROOT / ".github" / "environments").glob("*.yaml"))
SCRIPTS = chart.ROOT / ".github" / "scripts"
WORKFLOWS = chart.ROOT / ".github" / "workflows"
# Storage in memory and --dry-run: helm does all that it does before it asks a cluster, its check of every flag included.
# What the cluster then does, and the history, is the recorded one's.
HELM = f"""#!/bin/sh
[ "$1" != upgrade ] || {chart.HELM} "$@" --dry-run=client >>"$HOME/helm.out" || exit 1
exec "$(dirname "$0")/recorded/helm" "$@"
"""
IMAGES = {f"ghcr.io/owner/repo/gateway@sha256:{'b' * 64}", f"ghcr.io/owner/repo/engine@sha256:{'c' * 64}"}


@pytest.fixture
def deploy(tmp_path):
    """Run deploy-cluster.sh for a file of values; returns exit code, log entry and what helm printed."""
    cluster = Cluster(tmp_path)
    (cluster.bin / "recorded").mkdir()
    (cluster.bin / "helm").rename(cluster.bin / "recorded" / "helm")
    (cluster.bin / "helm").write_text(HELM)
    (cluster.bin / "helm").chmod(0o755)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nif [ "$2" = serving.canary ]; then exec {cluster.bin}/canary "$@"; fi\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)

    def go(values, *statuses, **script):
        """`statuses` of the revisions before; `script` says how the cluster's next calls end."""
        cluster.released(*statuses)
        cluster.write(script={name.replace("_", " "): how for name, how in script.items()})
        folder = tmp_path / ".github" / "environments"
        folder.mkdir(parents=True)
        (folder / "here.yaml").write_text(values)
        done = subprocess.run(
            ["bash", SCRIPTS / "deploy-cluster.sh"],
            cwd=tmp_path,
            env={
                "PATH": cluster.environ()["PATH"],
                "HOME": str(tmp_path),
                "HELM_DRIVER": "memory",
                "HELM_MEMORY_DRIVER_DATA": "/dev/null",
                "KUBECONFIG": "/nonexistent",
                "PYTHON": str(python),
                "PYTHONPATH": f"{SCRIPTS}:{chart.ROOT}",
                "CHART": str(chart.CHART),
                "ENVIRONMENT": "here",
                "RELEASE": "qwen3-vl",
                "NAMESPACE": chart.NAMESPACE,
                "VERSION": "0.1.0-main.7",
                "GATEWAY_DIGEST": "sha256:" + "b" * 64,
                "ENGINE_DIGEST": "sha256:" + "c" * 64,
                "PUBLIC_URL": "https://vision.example",
                "CANARY_SET": "qwen3-vl-8b",
                "CANARY_API_KEY": "sk-canary",
                "SOAK_S": "0",
                "ALLOW_OLDER": "yes",
                "GITHUB_REPOSITORY": "Owner/Repo",
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return (
            done.returncode,
            json.loads((tmp_path / "deploy-log.json").read_text()),
            (tmp_path / "helm.out").read_text(),
        )

    go.cluster = cluster
    return go


def shown(printed):
    """The images of what helm rendered."""
    manifests = chart.parse(printed.partition("MANIFEST:\n")[2].partition("\nNOTES:")[0])
    assert {"Deployment", "Service", "NetworkPolicy"} <= {one["kind"] for one in manifests}
    return {
        container["image"] for pod in chart.pod_templates(manifests).values() for container in chart.containers(pod)
    }


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_helm_takes_an_environment_as_it_is_deployed(deploy, path):
    code, entry, printed = deploy(path.read_text())
    assert (code, entry["reason"]) == (0, "")
    assert shown(printed) == IMAGES


@pytest.mark.parametrize(
    ("script", "code", "result", "verbs"),
    [
        ({}, 0, "succeeded", ["upgrade", "canary"]),
        (
            {"helm_upgrade": ["context deadline exceeded"]},
            1,
            "rolled_back",
            ["upgrade", "rollback qwen3-vl 2", "canary"],
        ),
        (
            {"canary": ["3 of 9 answers are right"]},
            1,
            "rolled_back",
            ["upgrade", "canary", "rollback qwen3-vl 2", "canary"],
        ),
        (
            {"canary": ["3 of 9 answers are right"], "helm_rollback": ["timed out waiting"]},
            3,
            "rollback_failed",
            ["upgrade", "canary", "rollback qwen3-vl 2"],
        ),
    ],
    ids=["success", "timeout", "canary failure", "rollback failure"],
)
@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_what_is_decided_of_what_helm_itself_renders(deploy, path, script, code, result, verbs):
    ended, entry, printed = deploy(path.read_text(), "superseded", "deployed", **script)
    assert (ended, entry["result"]) == (code, result)
    assert deploy.cluster.verbs() == verbs
    assert shown(printed) == IMAGES
    (kept,) = deploy.cluster.state["entries"]
    assert json.loads(kept["data"]["entry.json"]) == entry


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_a_key_that_the_chart_does_not_know_fails_and_changes_nothing(deploy, path):
    code, entry, printed = deploy(path.read_text() + "gatewya: {replicas: 3}\n")
    assert (code, entry["result"]) == (1, "failed")
    assert "gatewya" in str(entry["reason"]) + printed


@pytest.mark.parametrize("name", ["deploy.yml", "rollback.yml"])
def test_every_environment_that_can_be_chosen_has_its_values(name):
    workflow = yaml.safe_load((WORKFLOWS / name).read_text())
    chosen = workflow[True]["workflow_dispatch"]["inputs"]["environment"]["options"]  # YAML 1.1 takes `on` for true
    assert sorted(chosen) == [path.stem for path in ENVIRONMENTS]


@pytest.mark.parametrize("verb", sorted(FLAGS))
def test_helm_has_every_flag_that_the_recorded_one_takes(verb):
    described = chart.run_helm(verb.split()[1], "--help").stdout
    assert [flag for flag in FLAGS[verb] if not re.search(rf"^ .*{flag}\b", described, re.MULTILINE)] == []


def test_a_release_that_is_not_there_is_told_in_the_words_that_are_looked_for():
    done = chart.run_helm(
        "history", "nothing", check=False, environ={"HELM_DRIVER": "memory", "HELM_MEMORY_DRIVER_DATA": "/dev/null"}
    )
    assert done.returncode
    assert "release: not found" in done.stderr
