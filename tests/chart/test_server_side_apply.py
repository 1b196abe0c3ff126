"""What a server-side apply takes without a fight: nothing that the API server would write otherwise, or somebody else owns.

Lists with two entries for one key are looked for with the schemas' own keys (test_schemas.py).
"""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

from tests.support import chart
from tests.support.chart import at, merged

# Empty means something here: "all", or "with its defaults".
MAY_BE_EMPTY = {"emptyDir", "podSelector", "namespaceSelector", "ingress", "egress"}
QUANTITIES = {"cpu", "memory", "storage", "sizeLimit", "averageValue", "ephemeral-storage"}
CANONICAL = re.compile(r"[1-9][0-9]*(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
# What a label's value and a name may be.
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
RELEASES = [
    "shop",
    "a",
    "1-shop",
    "team.shop",
    "qwen3-vl",
    "r" * 53,
    "very-long-release-name-for-vision-in-the-first-region",
]


def canonical(quantity):
    """Whether the API server would write it so: 1Gi, not 1024Mi; 500m, not 0.5."""
    found = CANONICAL.fullmatch(quantity)
    if not found:
        return quantity == "0"
    number, unit = int(re.match("[0-9]+", quantity)[0]), found[1] or ""
    return number % (1024 if unit.endswith("i") else 1000) != 0


@pytest.mark.parametrize(
    ("quantity", "kept"),
    [("1Gi", True), ("1536Mi", True), ("500m", True), ("2", True), ("0", True), ("0.5", False), ("1024Mi", False), ("1000m", False), ("1e3", False)],
)  # fmt: skip
def test_a_quantity_is_canonical_or_not(quantity, kept):
    assert canonical(quantity) is kept


def quantities(manifests):
    for one in manifests:
        for path, value in chart.leaves(one):
            if path[-1] in QUANTITIES and "data" not in path:
                yield (one["metadata"]["name"], *path), value


def test_quantities_are_written_as_the_api_server_writes_them(manifests):
    found = list(quantities(manifests))
    assert found
    assert [(path, value) for path, value in found if not (isinstance(value, str) and canonical(value))] == []


def test_computed_quantities_are_too():
    values = merged(at("redis.maxMemoryMiB", 2048), at("pools.l4", {"profile": "h100-x2", "shmPerGpu": "512Mi"}))
    found = {path[-2:]: value for path, value in quantities(chart.plain(values))}
    assert all(canonical(value) for value in found.values()), found
    redis = chart.only(chart.plain(values), "StatefulSet", "-redis")["spec"]["template"]["spec"]["containers"][0]
    assert (redis["resources"]["requests"]["memory"], redis["resources"]["limits"]["memory"]) == ("2Gi", "3Gi")


def test_nothing_is_null_or_empty(manifests):
    for one in manifests:
        for path, value in chart.leaves(one):
            assert value is not None, (one["metadata"]["name"], path)
            if value in ({}, []):
                assert path[-1] in MAY_BE_EMPTY, (one["metadata"]["name"], path)


def test_nothing_that_the_api_server_writes_is_sent(manifests):
    written = {
        "status",
        "creationTimestamp",
        "uid",
        "resourceVersion",
        "generation",
        "managedFields",
        "nodePort",
        "clusterIPs",
    }
    for one in manifests:
        assert not written & {key for path, _ in chart.leaves(one) for key in path if "data" not in path}, one[
            "metadata"
        ]


def test_a_workload_that_is_scaled_by_others_leaves_replicas_alone():
    manifests = chart.render(chart.EVERYTHING)
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]
        for one in manifests
        if one["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}
    }
    assert len(scaled) == 3
    for one in chart.kind(manifests, "Deployment"):
        assert ("replicas" in one["spec"]) == (one["metadata"]["name"] not in scaled)


def test_no_two_autoscalers_have_one_workload():
    targets = [
        one["spec"]["scaleTargetRef"]["name"]
        for one in chart.render(chart.EVERYTHING)
        if one["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}
    ]
    assert len(targets) == len(set(targets))


@pytest.fixture(scope="module")
def long_version(tmp_path_factory):
    """The chart as CI packages it from a branch: a version with a build, longer than a label may be."""
    copy = tmp_path_factory.mktemp("chart") / "qwen3-vl"
    shutil.copytree(chart.CHART, copy)
    version = "10.20.30-main.4000+build.0123456789abcdef0123456789abcdef01234567.more"
    described = yaml.safe_load((copy / "Chart.yaml").read_text()) | {"version": version, "appVersion": version}
    (copy / "Chart.yaml").write_text(yaml.safe_dump(described))
    return copy


@pytest.mark.parametrize("release", RELEASES)
def test_names_and_labels_are_valid_whatever_the_release_is_called(release, long_version, tmp_path):
    values = tmp_path / "values.json"
    values.write_text(yaml.safe_dump(merged(chart.EVERYTHING, {"pools": {"p" * 20: {"profile": "l4"}}})))
    manifests = chart.parse(chart.run_helm("template", release, str(long_version), "--values", str(values)).stdout)
    for one in manifests:
        name = one["metadata"]["name"]
        assert SUBDOMAIN.fullmatch(name), name
        if one["kind"] == "Service":
            assert SERVICE.fullmatch(name), name
        # A StatefulSet's pods have its name and a hash in a label.
        assert one["kind"] != "StatefulSet" or len(name) <= 52
    labels = [
        (key, value)
        for one in [*manifests, *chart.pod_templates(manifests).values()]
        for key, value in one["metadata"]["labels"].items()
    ]
    assert [(key, value) for key, value in labels if not LABEL.fullmatch(value)] == []


def names_of(release):
    done = chart.run_helm("template", release, str(chart.CHART), "--values", str(chart.PRESETS["a100"]))
    return {(one["kind"], one["metadata"]["name"]) for one in chart.parse(done.stdout)}


@pytest.mark.parametrize(
    ("one", "other"),
    [("r" * 52 + "a", "r" * 52 + "b"), ("team.shop", "team-shop"), ("1shop", "r1shop")],
)
def test_two_releases_never_share_a_name(one, other):
    assert not names_of(one) & names_of(other)


def test_volumes_of_two_namespaces_never_share_a_name():
    """A PersistentVolume belongs to the cluster: a-b/c and a/b-c must differ."""

    def volumes(namespace, fullname):
        words = ["template", "x", str(chart.CHART), "--namespace", namespace, "--set", f"fullnameOverride={fullname}"]
        done = chart.run_helm(*words, "--values", str(chart.PRESETS["a100"]))
        return {one["metadata"]["name"] for one in chart.kind(chart.parse(done.stdout), "PersistentVolume")}

    assert len(volumes("a", "b-c")) == 2
    assert not volumes("a", "b-c") & volumes("a-b", "c")
