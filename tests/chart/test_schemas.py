"""Every manifest against the strict schemas of Kubernetes 1.29 to 1.37, and of the custom resources."""

from __future__ import annotations

import copy
import json
import subprocess

import pytest
import yaml

from tests.support import chart

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
CRDS = yaml.safe_load((chart.ROOT / "tests" / "chart" / "crds.yaml").read_text())


def faults(manifests, versions=VERSIONS):
    done = subprocess.run(
        [chart.TOOLS / "python", chart.ROOT / "tests" / "support" / "manifest_schemas.py"],
        input=json.dumps({"versions": versions, "crds": CRDS, "manifests": manifests}),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_every_manifest_is_valid_in_every_release():
    manifests = {name: chart.render(values, preset) for name, (values, preset) in chart.SAMPLES.items()}
    assert faults(manifests) == []


def test_every_custom_resource_is_among_the_samples():
    seen = {
        f"{one['apiVersion']}/{one['kind']}"
        for values, preset in chart.SAMPLES.values()
        for one in chart.render(values, preset)
    }
    # No alerts are there as long as files/alerts is empty.
    assert set(CRDS) - seen <= {"monitoring.coreos.com/v1/PrometheusRule"}


@pytest.fixture(scope="module")
def broken():
    """Each kind of manifest with a field that does not exist, and a pod with a wrong type."""
    manifests = []
    for values, preset in chart.SAMPLES.values():
        for one in chart.render(values, preset):
            if one["kind"] not in {other["kind"] for other in manifests} and "spec" in one:
                wrong = copy.deepcopy(one)
                wrong["spec"]["noSuchField"] = True
                manifests.append(wrong)
    for one in chart.render(chart.MULTI_NODE):
        if one["kind"] == "LeaderWorkerSet":
            wrong = copy.deepcopy(one)
            wrong["metadata"]["name"] = "wrong-worker"
            wrong["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]["args"] = "run"
            manifests.append(wrong)
    return manifests


def test_a_field_that_does_not_exist_is_found_in_every_kind(broken):
    found = faults({"broken": broken}, ["1.29", "1.37"])
    for one in broken:
        assert any(one["metadata"]["name"] in fault for fault in found), one["kind"]


@pytest.mark.parametrize(
    ("kind", "path", "entry"),
    [
        ("Deployment", "env", {"name": "GATEWAY_HOST", "value": "::"}),
        ("Deployment", "ports", {"name": "again", "containerPort": 8080}),
        ("Deployment", "volumeMounts", {"name": "keys", "mountPath": "/tmp"}),
        ("Service", "ports", {"name": "again", "port": 80}),
    ],
)
def test_two_entries_for_one_key_of_server_side_apply_are_found(kind, path, entry):
    one = copy.deepcopy(chart.only(chart.plain(), kind, "-gateway"))
    spec = one["spec"] if kind == "Service" else one["spec"]["template"]["spec"]["containers"][0]
    assert faults({"x": [one]}, ["1.29"]) == []
    spec[path].append(entry)
    (found,) = faults({"x": [one]}, ["1.29"])
    assert found.endswith(" twice")


def test_a_kind_that_nobody_knows_is_a_fault():
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}}
    assert faults({"x": [thing]}, ["1.37"]) == [
        "x: Thing/x (1.37): example.com/v1 Thing does not exist in Kubernetes 1.37"
    ]


def test_alerts_have_the_operators_shape_and_only_that():
    rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "x"}}
    groups = [
        {"name": "g", "rules": [{"alert": "Down", "expr": "up == 0", "for": "5m", "labels": {"severity": "page"}}]}
    ]
    assert faults({"x": [rule | {"spec": {"groups": groups}}]}, ["1.37"]) == []
    groups[0]["rules"][0]["severity"] = "page"
    assert len(faults({"x": [rule | {"spec": {"groups": groups}}]}, ["1.37"])) == 1
