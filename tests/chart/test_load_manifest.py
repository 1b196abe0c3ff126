"""The load test's own manifest: valid in every release, and restricted as the chart's pods are."""

from __future__ import annotations

import yaml

from tests.chart.test_pod_security import violations
from tests.support import chart
from tests.support.schemas import faults

FOLDER = chart.ROOT / "loadtest" / "cluster"
MANIFESTS = list(yaml.safe_load_all((FOLDER / "load.yaml").read_text()))
JOBS = {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == "Job"}


def arguments(job):
    return JOBS[job]["spec"]["template"]["spec"]["containers"][0]["args"]


def test_every_manifest_is_valid_in_every_release():
    assert faults({"load": MANIFESTS}) == []


def test_every_pod_is_restricted_and_its_root_is_read_only():
    for job in JOBS.values():
        pod = job["spec"]["template"]
        assert violations(pod) == []
        assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in pod["spec"]["containers"])
        assert pod["spec"]["automountServiceAccountToken"] is False


def test_the_master_expects_as_many_generators_as_there_are():
    expected = arguments("load-master")[arguments("load-master").index("--expect-workers") + 1]
    assert int(expected) == JOBS["load-generators"]["spec"]["parallelism"]
    assert JOBS["load-generators"]["spec"]["completions"] == int(expected)


def test_generators_find_the_master_by_its_service():
    (service,) = [one for one in MANIFESTS if one["kind"] == "Service"]
    assert service["metadata"]["name"] in arguments("load-generators")
    labels = JOBS["load-master"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_a_verdict_is_not_tried_again():
    assert {job["spec"]["backoffLimit"] for job in JOBS.values()} == {0}


def test_the_key_is_a_secret_s():
    for job in JOBS.values():
        (variable,) = job["spec"]["template"]["spec"]["containers"][0]["env"]
        assert variable["name"] == "LOAD_KEY"
        assert "secretKeyRef" in variable["valueFrom"]
