"""What Kubernetes would take: unique objects, no list with two entries for one key, names that fit."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter

import pytest

from tests.support import chart

CLUSTER_WIDE = {"PersistentVolume"}


def test_lint_finds_nothing():
    done = chart.run_helm("lint", "--strict", str(chart.CHART))
    assert "0 chart(s) failed" in done.stdout
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("preset", sorted(chart.PRESETS))
def test_lint_finds_nothing_in_a_preset(preset):
    done = chart.run_helm("lint", "--strict", str(chart.CHART), "--values", str(chart.PRESETS[preset]))
    assert "0 chart(s) failed" in done.stdout


def test_the_presets_are_those_that_the_documents_name():
    assert list(chart.PRESETS) == [
        "a10", "a100", "air-gapped", "h100-tp2", "minimal", "production", "t4", "volcengine-vke",
    ]  # fmt: skip


def test_no_two_objects_have_one_name(manifests):
    names = Counter((one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in manifests)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_object_is_the_releases_and_says_so(manifests):
    for one in manifests:
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == chart.RELEASE
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert one["metadata"].get("namespace") == (None if one["kind"] in CLUSTER_WIDE else chart.NAMESPACE)


def test_ports_of_a_pod_have_one_name_each(manifests):
    for name, pod in chart.pod_templates(manifests).items():
        names = [port["name"] for container in chart.containers(pod) for port in container.get("ports", [])]
        assert len(names) == len(set(names)), name


def test_nothing_is_left_to_a_template(manifests):
    for one in manifests:
        for path, text in chart.leaves(one):
            assert "<no value>" not in str(text), path
            assert "%!" not in str(text), path


def test_selectors_find_the_pods_that_they_mean(manifests):
    pods = chart.pod_templates(manifests)
    for one in manifests:
        selector = one.get("spec", {}).get("selector", {})
        if one["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor", "InferencePool"}:
            selector = selector["matchLabels"]
        elif one["kind"] != "Service":
            continue
        selector = {k: v for k, v in selector.items() if not k.startswith("leaderworkerset")}
        found = [name for name, pod in pods.items() if selector.items() <= pod["metadata"]["labels"].items()]
        assert found, (one["kind"], one["metadata"]["name"])
        component = one["metadata"]["labels"][chart.COMPONENT]
        assert {pods[name]["metadata"]["labels"][chart.COMPONENT] for name in found} == {component}


def test_pods_have_no_label_that_changes_with_the_chart(manifests):
    for name, pod in chart.pod_templates(manifests).items():
        if not name.endswith("-test"):
            assert set(pod["metadata"]["labels"]) <= {
                "app.kubernetes.io/name", "app.kubernetes.io/instance", chart.COMPONENT, chart.PER_POD,
            }, name  # fmt: skip


def test_large_numbers_stay_numbers():
    pod = chart.pod_templates(chart.plain(chart.at("gateway.settings.image_max_source_pixels", 50_000_000)))
    gateway = pod[f"{chart.RELEASE}-qwen3-vl-gateway"]["spec"]["containers"][0]
    assert chart.environment(gateway)["GATEWAY_IMAGE_MAX_SOURCE_PIXELS"] == "50000000"


def test_notes_say_the_next_command():
    done = chart.run_helm(
        "install",
        chart.RELEASE,
        str(chart.CHART),
        "--namespace",
        chart.NAMESPACE,
        "--dry-run=client",
        "--values",
        str(chart.PRESETS["a10"]),
    )
    notes = done.stdout.partition("NOTES:")[2]
    assert "helm -n vision test shop --logs" in notes
    assert "kubectl -n vision get secret shop-qwen3-vl-keys -o jsonpath='{.data.first-key}' | base64 -d" in notes
    assert "kubectl -n vision port-forward service/shop-qwen3-vl-gateway 8080:80" in notes


def test_a_revision_fits_into_the_secret_that_helm_keeps_it_in(tmp_path):
    """Chart, values and manifests, packed as Helm packs them; a Secret holds 1 MiB, and more than that fails at install."""
    everything = tmp_path / "values.json"
    everything.write_text(json.dumps(chart.EVERYTHING))
    words = [
        "install",
        chart.RELEASE,
        str(chart.CHART),
        "--dry-run=client",
        "--output",
        "json",
        "--values",
        str(everything),
    ]
    release = json.loads(chart.run_helm(*words).stdout)
    assert {"chart", "manifest", "config"} <= set(release)
    assert len(base64.b64encode(gzip.compress(json.dumps(release).encode()))) < 0.7 * 2**20
