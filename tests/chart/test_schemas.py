"""Every manifest against the strict schemas of Kubernetes 1.29 to 1.37, and of the custom resources."""

from __future__ import annotations

import json

import pytest

from tests.support import chart
from tests.support.schemas import CRDS, faults


@pytest.mark.timeout(300)
def test_every_manifest_is_valid_in_every_release():
    manifests, seen = {}, set()
    for name, (values, preset) in chart.SAMPLES.items():
        # What another sample has too is looked at once.
        new = {text for one in chart.render(values, preset) if (text := json.dumps(one, sort_keys=True)) not in seen}
        manifests[name] = [json.loads(text) for text in sorted(new)]
        seen |= new
    assert len(seen) > 100
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
                one["spec"]["noSuchField"] = True
                manifests.append(one)
    for one in chart.render(chart.MULTI_NODE):
        if one["kind"] == "LeaderWorkerSet":
            one["metadata"]["name"] = "wrong-worker"
            one["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]["args"] = "run"
            manifests.append(one)
    return manifests


TWICE = {
    "env": ("Deployment", "env", {"name": "GATEWAY_HOST", "value": "::"}),
    "ports": ("Deployment", "ports", {"name": "again", "containerPort": 8080}),
    "mounts": ("Deployment", "volumeMounts", {"name": "keys", "mountPath": "/tmp"}),
    "service": ("Service", "ports", {"name": "again", "port": 80}),
}
"""A second entry for a key by which the API server merges: kind, list, entry."""
THING = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}}


def twice(kind, path, entry):
    one = chart.only(chart.plain(), kind, "-gateway")
    spec = one["spec"] if kind == "Service" else one["spec"]["template"]["spec"]["containers"][0]
    spec[path].append(entry)
    return [one]


@pytest.fixture(scope="module")
def found(broken):
    """What is wrong with what is wrong, by sample: one process for all."""
    samples = {name: twice(*what) for name, what in TWICE.items()} | {"broken": broken, "thing": [THING]}
    told = faults(samples, ["1.29", "1.37"])
    return {name: [fault for fault in told if fault.startswith(f"{name}: ")] for name in samples}


def test_a_field_that_does_not_exist_is_found_in_every_kind(broken, found):
    assert len(broken) > 10
    for one in broken:
        assert any(one["metadata"]["name"] in fault for fault in found["broken"]), one["kind"]


@pytest.mark.parametrize("name", sorted(TWICE))
def test_two_entries_for_one_key_of_server_side_apply_are_found(name, found):
    assert len(found[name]) == 2, "once for each release"
    assert all(fault.endswith(" twice") for fault in found[name])


def test_a_kind_that_nobody_knows_is_a_fault(found):
    assert found["thing"] == [
        f"thing: Thing/x ({version}): example.com/v1 Thing does not exist in Kubernetes {version}"
        for version in ("1.29", "1.37")
    ]


def test_alerts_have_the_operators_shape_and_only_that():
    rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "x"}}
    right = {"alert": "Down", "expr": "up == 0", "for": "5m", "labels": {"severity": "page"}}
    samples = {
        name: [rule | {"spec": {"groups": [{"name": "g", "rules": [one]}]}}]
        for name, one in {"right": right, "wrong": right | {"severity": "page"}}.items()
    }
    (told,) = faults(samples, ["1.37"])
    assert told.startswith("wrong: ")
