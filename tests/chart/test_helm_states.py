"""What .github/scripts/delivery takes for granted of helm, asked of the real one: its storage in memory, nothing sent."""

from __future__ import annotations

import json

import pytest
import yaml
from delivery import helm

from tests.support import chart
from tests.support.api_server import serving


@pytest.fixture
def release(tmp_path):
    """Run helm for a release with revisions in these states; gives what it answered."""

    def go(states, *words):
        revisions = [
            {
                "name": chart.RELEASE,
                "namespace": chart.NAMESPACE,
                "version": number,
                "info": {"status": status, "description": f"0.{number}.0", "last_deployed": "2026-11-20T08:00:00Z"},
                "chart": {"metadata": {"name": "qwen3-vl", "version": "0.1.0", "apiVersion": "v2"}},
            }
            for number, status in enumerate(states, start=1)
        ]
        (tmp_path / "revisions.yaml").write_text(yaml.safe_dump(revisions))
        with serving([], tmp_path) as kubeconfig:
            return chart.run_helm(
                *words,
                "--namespace",
                chart.NAMESPACE,
                check=False,
                environ={
                    "HELM_DRIVER": "memory",
                    "HELM_MEMORY_DRIVER_DATA": str(tmp_path / "revisions.yaml"),
                    "KUBECONFIG": str(kubeconfig),
                    "HOME": str(tmp_path),
                },
            )

    return go


UPGRADE = (
    "upgrade",
    chart.RELEASE,
    str(chart.CHART),
    "--install",
    "--values",
    str(chart.PRESETS["a10"]),
    "--dry-run=client",
)
ROLLBACK = ("rollback", chart.RELEASE, "1", "--cleanup-on-fail", "--wait", "--dry-run=client")


def test_its_history_is_read_as_it_is_written(release):
    done = release(["superseded", "deployed", "pending-upgrade"], "history", chart.RELEASE, "--output", "json")
    history = helm.parse(done.stdout)
    assert [(one.number, one.status, one.description) for one in history] == [
        (1, "superseded", "0.1.0"), (2, "deployed", "0.2.0"), (3, "pending-upgrade", "0.3.0"),
    ]  # fmt: skip
    assert history[-1].updated.isoformat() == "2026-11-20T08:00:00+00:00"
    assert helm.serving(history).number == 2


@pytest.mark.parametrize("states", [["deployed"], ["failed"], ["superseded", "failed"], ["deployed", "failed"]])
def test_it_upgrades_what_serves_and_what_failed_as_a_first_release(release, states):
    done = release(states, *UPGRADE)
    assert done.returncode == 0, done.stderr
    assert "kind: Deployment" in done.stdout


def test_it_refuses_to_upgrade_what_a_killed_run_left(release):
    done = release(["deployed", "pending-upgrade"], *UPGRADE)
    assert done.returncode
    assert "another operation" in done.stderr


@pytest.mark.parametrize("last", ["failed", "pending-upgrade", "pending-rollback"])
def test_it_rolls_back_from_whatever_state(release, last):
    done = release(["deployed", last], *ROLLBACK)
    assert done.returncode == 0, done.stderr


def test_a_revision_that_is_not_kept_is_an_error(release):
    assert release(["deployed"], "rollback", chart.RELEASE, "7", "--dry-run=client").returncode
    assert json.loads(release(["deployed"], "history", chart.RELEASE, "--output", "json").stdout)[0]["revision"] == 1


@pytest.fixture
def older(tmp_path):
    """Upgrade, with these words, a release whose chart did not know two of today's values."""
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    del values["monitoring"]["dcgmCounters"], values["exposure"]["inferencePool"]
    described = {"name": "qwen3-vl", "version": "0.0.9", "apiVersion": "v2"}
    one = {
        "name": chart.RELEASE,
        "namespace": chart.NAMESPACE,
        "version": 1,
        "info": {"status": "deployed"},
        "chart": {"metadata": described, "values": values},
        "config": yaml.safe_load(chart.PRESETS["a10"].read_text()) | {"drain": {"seconds": 45}},
    }
    (tmp_path / "revisions.yaml").write_text(yaml.safe_dump([one]))

    def go(*words):
        environ = {
            "HELM_DRIVER": "memory",
            "HELM_MEMORY_DRIVER_DATA": str(tmp_path / "revisions.yaml"),
            "HOME": str(tmp_path),
        }
        with serving([], tmp_path) as kubeconfig:
            argv = ["upgrade", chart.RELEASE, str(chart.CHART), "--namespace", chart.NAMESPACE, "--dry-run=client"]
            return chart.run_helm(*argv, *words, check=False, environ=environ | {"KUBECONFIG": str(kubeconfig)})

    return go


def test_values_that_are_reused_without_new_ones_are_refused_by_name(older):
    done = older("--reuse-values")
    assert done.returncode
    assert "missing property 'inferencePool'" in done.stderr
    assert "missing property 'dcgmCounters'" in done.stderr


def test_values_that_are_reused_over_todays_defaults_are_those_of_the_release(older):
    done = older("--reset-then-reuse-values")
    assert done.returncode == 0, done.stderr
    assert '--shutdown-timeout\n            - "45"' in done.stdout
