"""`helm upgrade` changes no immutable field and makes no volume anew: against the last release, and the last tag's chart.

released.json holds the immutable fields of each preset. Once released, a line of it must never change: an upgrade would be
refused by the API server, or lose a disk. UPDATE_GOLDEN=1 writes it anew, for new objects.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess

import pytest
import yaml

from tests.support import chart
from tests.support.chart import at

RELEASED = chart.ROOT / "tests" / "chart" / "released.json"
MUTABLE_OF_A_STATEFUL_SET = {
    "replicas", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds", "ordinals", "revisionHistoryLimit",
}  # fmt: skip
KEEPS_DATA = {"PersistentVolume", "PersistentVolumeClaim", "StatefulSet"}


IMMUTABLE = {
    "Deployment": lambda one: {"selector": one["spec"]["selector"]},
    "StatefulSet": lambda one: {
        key: value for key, value in one["spec"].items() if key not in MUTABLE_OF_A_STATEFUL_SET
    },
    "PersistentVolumeClaim": lambda one: {key: value for key, value in one["spec"].items() if key != "resources"},
    "PersistentVolume": lambda one: {key: one["spec"][key] for key in ("hostPath", "volumeMode")},
    "Service": lambda one: {"clusterIP": one["spec"].get("clusterIP")},
    "LeaderWorkerSet": lambda one: {"size": one["spec"]["leaderWorkerTemplate"]["size"]},
    "Secret": lambda one: {"type": one["type"]},
}
"""Kind -> the fields that the API server lets nobody change."""


def fields(manifests):
    return {
        f"{one['kind']}/{one['metadata']['name']}": IMMUTABLE[one["kind"]](one)
        for one in manifests
        if one["kind"] in IMMUTABLE
    }


def broken(before, after):
    """What an upgrade would stumble over."""
    changed = [name for name, value in before.items() if name in after and after[name] != value]
    gone = [name for name in before if name.partition("/")[0] in KEEPS_DATA and name not in after]
    return changed + gone


@pytest.fixture(scope="module")
def now():
    return {name: fields(chart.render(values, preset)) for name, (values, preset) in chart.SAMPLES.items()}


def test_nothing_that_was_released_is_recreated(now):
    if os.environ.get("UPDATE_GOLDEN"):
        RELEASED.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    released = json.loads(RELEASED.read_text())
    assert {name: found for name, before in released.items() if (found := broken(before, now[name]))} == {}
    assert set(released) == set(now), "a new preset: UPDATE_GOLDEN=1 records it"


def git(root, *words):
    return subprocess.run(["git", *words], capture_output=True, check=True, cwd=root).stdout


def last_tag(root):
    """The last tag of this repository that has the chart; None before the first release."""
    for tag in git(root, "tag", "--sort=-version:refname").decode().split():
        if git(root, "ls-tree", tag, "helm/qwen3-vl/"):
            return tag
    return None


def broken_since(tag, root, folder):
    """What an upgrade from the tag's chart to today's would stumble over: for each preset of the tag, with its own values."""
    subprocess.run(["tar", "-x", "-C", folder], input=git(root, "archive", tag, "helm/qwen3-vl"), check=True)
    old, found = folder / "helm" / "qwen3-vl", {}
    for preset in sorted((old / "ci").glob("*.yaml")):
        values = yaml.safe_load(preset.read_text())
        before, after = (fields(chart.parse(chart.render_text(values, chart=one))) for one in (old, chart.CHART))
        found[preset.stem] = broken(before, after)
    return found


def test_an_upgrade_from_the_last_tag_recreates_nothing(tmp_path):
    """Before the first release there is none: that the comparison works is the next test's claim."""
    if tag := last_tag(chart.ROOT):
        found = broken_since(tag, chart.ROOT, tmp_path)
        assert found
        assert {preset: names for preset, names in found.items() if names} == {}


def test_the_last_tag_is_compared_and_what_it_had_is_missed(tmp_path):
    """A repository with three tags: one without the chart, one with today's, one whose Redis had another Service."""
    root = tmp_path / "repository"
    shutil.copytree(chart.CHART, root / "helm" / "qwen3-vl")
    for preset in set(chart.PRESETS) - {"minimal", "a10"}:
        (root / "helm" / "qwen3-vl" / "ci" / f"{preset}.yaml").unlink()
    git(root, "init", "--quiet")
    git(root, "config", "user.email", "a@example.com")
    git(root, "config", "user.name", "a")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "nothing yet")
    git(root, "tag", "v9.0.0")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "as today")
    git(root, "tag", "v0.9.0")
    redis = root / "helm" / "qwen3-vl" / "templates" / "redis.yaml"
    redis.write_text(redis.read_text().replace("serviceName: {{", "serviceName: old-{{"))
    git(root, "commit", "--quiet", "--all", "--message", "another Service")
    git(root, "tag", "v0.10.0")
    assert last_tag(root) == "v0.10.0"
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    assert broken_since("v0.9.0", root, tmp_path / "same") == {"a10": [], "minimal": []}
    assert broken_since("v0.10.0", root, tmp_path / "other") == {
        "a10": ["StatefulSet/shop-qwen3-vl-redis"],
        "minimal": [],
    }


@pytest.mark.parametrize(
    "later",
    [
        at("engine.image.digest", "sha256:" + "b" * 64),
        at("pools.l4.weights.source", "s3://models/other"),
        at("pools.l4.weights.volume.size", "80Gi"),
        at("drain.seconds", 60),
        at("gateway.autoscaling.kind", "hpa"),
        at("pools.more", {"profile": "a10"}),
        at("redis.maxMemoryMiB", 1024),
        at("exposure.service.type", "LoadBalancer"),
        at("networkPolicy.enabled", False),
    ],
)
def test_what_operators_change_recreates_nothing(later):
    assert broken(fields(chart.plain()), fields(chart.plain(later))) == []


def test_a_new_version_of_the_chart_alone_restarts_nothing(tmp_path):
    newer = tmp_path / "qwen3-vl"
    shutil.copytree(chart.CHART, newer)
    described = yaml.safe_load((newer / "Chart.yaml").read_text()) | {"version": "9.9.9", "appVersion": "9.9.9"}
    (newer / "Chart.yaml").write_text(yaml.safe_dump(described))
    before = chart.plain()
    after = chart.parse(chart.render_text(chart.PLAIN, chart=newer))
    assert "9.9.9" in str(after)
    assert broken(fields(before), fields(after)) == []
    assert workloads(before) == workloads(after)


def workloads(manifests):
    return {name: pod for name, pod in chart.pod_templates(manifests).items() if not name.endswith("-test")}


@pytest.mark.parametrize(
    ("kind", "suffix", "path", "value"),
    [
        ("Deployment", "-gateway", ("spec", "selector", "matchLabels", "x"), "y"),
        ("StatefulSet", "-redis", ("spec", "serviceName"), "other"),
        (
            "StatefulSet",
            "-redis",
            ("spec", "volumeClaimTemplates", 0, "spec", "resources", "requests", "storage"),
            "8Gi",
        ),
        ("PersistentVolumeClaim", "-weights", ("spec", "accessModes"), ["ReadWriteMany"]),
        ("Service", "-redis", ("spec", "clusterIP"), "10.0.0.1"),
        ("PersistentVolumeClaim", "-cache", ("metadata", "name"), "renamed"),
    ],
)
def test_the_check_finds_each_change_that_would_hurt(kind, suffix, path, value):
    before = chart.plain()
    after = copy.deepcopy(before)
    node = chart.only(after, kind, suffix)
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert broken(fields(before), fields(after))
