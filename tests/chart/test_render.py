"""What Kubernetes would take: unique objects, no list with two entries for one key, names that fit."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support import chart

CLUSTER_WIDE = {"PersistentVolume"}
# Lists that the API server merges by these keys: two entries with one key are what a server-side apply refuses.
LIST_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}


def lists(node, path=()):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from lists(value, (*path, key))
    elif isinstance(node, list):
        yield path, node
        for value in node:
            yield from lists(value, path)


def key_of(path, entry):
    if path[-1] == "ports" and "containerPort" in entry:
        return entry["containerPort"], entry.get("protocol", "TCP")
    if path[-1] == "ports" and "targetPort" in entry:
        return entry["port"], entry["protocol"]
    names = LIST_KEYS.get(path[-1])
    return tuple(entry.get(name) for name in names) if names else None


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


def test_no_merged_list_has_two_entries_for_one_key(manifests):
    for one in manifests:
        for path, entries in lists(one):
            keys = [key for entry in entries if isinstance(entry, dict) and (key := key_of(path, entry)) is not None]
            twice = [key for key, count in Counter(keys).items() if count > 1]
            assert not twice, (one["metadata"]["name"], path, twice)


def test_ports_of_a_pod_have_one_name_each(manifests):
    for name, pod in chart.pod_templates(manifests).items():
        names = [port["name"] for container in chart.containers(pod) for port in container.get("ports", [])]
        assert len(names) == len(set(names)), name


def test_nothing_is_null_or_left_to_a_template(manifests):
    def walk(node, path):
        assert node is not None, path
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, (*path, key))
        elif isinstance(node, list):
            for value in node:
                walk(value, path)
        else:
            assert "<no value>" not in str(node), path
            assert "%!" not in str(node), path

    for one in manifests:
        walk(one, (one["metadata"]["name"],))


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


def test_long_names_still_fit_a_service():
    values = {"fullnameOverride": "f" * 32, "pools": {"l4": None, "p" * 20: {"profile": "l4"}}}
    for one in chart.kind(chart.plain(values), "Service"):
        assert len(one["metadata"]["name"]) <= 63


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
