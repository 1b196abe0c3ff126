"""Pod Security Standards, "restricted", for every pod: https://kubernetes.io/docs/concepts/security/pod-security-standards/"""

from __future__ import annotations

import copy

import pytest

from tests.support import chart

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
RUNTIME_PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod):
    spec = pod["spec"]
    outer = spec.get("securityContext", {})
    found = [f"spec.{name}" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"volume {one['name']}" for one in spec.get("volumes", []) if not set(one) - {"name"} <= VOLUMES]
    if outer.get("sysctls"):
        found.append("sysctls")
    for one in chart.containers(pod):
        inner = one.get("securityContext", {})
        rules = {
            "privileged": not inner.get("privileged"),
            "allowPrivilegeEscalation": inner.get("allowPrivilegeEscalation") is False,
            "drop ALL": inner.get("capabilities", {}).get("drop") == ["ALL"],
            "add": set(inner.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"},
            "runAsNonRoot": inner.get("runAsNonRoot", outer.get("runAsNonRoot")) is True,
            "runAsUser": inner.get("runAsUser", outer.get("runAsUser", 1)) != 0,
            "seccompProfile": inner.get("seccompProfile", outer.get("seccompProfile", {})).get("type")
            in RUNTIME_PROFILES,
            "procMount": inner.get("procMount", "Default") == "Default",
            "hostPort": not any(port.get("hostPort") for port in one.get("ports", [])),
        }
        found += [f"{one['name']}: {rule}" for rule, kept in rules.items() if not kept]
    return found


def test_every_pod_is_restricted(manifests):
    pods = chart.pod_templates(manifests)
    assert len(pods) >= 2
    assert {name: found for name, pod in pods.items() if (found := violations(pod))} == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "hostNetwork"), True),
        (("spec", "volumes", 0), {"name": "keys", "hostPath": {"path": "/"}}),
        (("spec", "securityContext", "runAsNonRoot"), False),
        (("spec", "securityContext", "runAsUser"), 0),
        (("spec", "securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("spec", "containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("spec", "containers", 0, "securityContext", "capabilities"), {"drop": []}),
        (("spec", "containers", 0, "securityContext", "privileged"), True),
        (("spec", "containers", 0, "ports", 0, "hostPort"), 80),
    ],
)
def test_the_check_finds_each_violation(path, value):
    pod = copy.deepcopy(chart.pod_templates(chart.plain())[f"{chart.RELEASE}-qwen3-vl-gateway"])
    node = pod
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert violations(pod)


def test_every_pod_is_stricter_than_that(manifests):
    for name, pod in chart.pod_templates(manifests).items():
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        # Variables of other Services are named GATEWAY_… too, and the gateway refuses names that it does not know.
        assert pod["spec"]["enableServiceLinks"] is False, name
        assert pod["spec"]["serviceAccountName"] not in {"", "default"}, name
        for one in chart.containers(pod):
            assert one["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert {"cpu", "memory"} <= set(one["resources"]["requests"]), name
            assert {"cpu", "memory"} <= set(one["resources"]["limits"]), name


def test_every_service_account_is_made_here_and_has_no_token(manifests):
    made = {one["metadata"]["name"]: one for one in chart.kind(manifests, "ServiceAccount")}
    used = {pod["spec"]["serviceAccountName"] for pod in chart.pod_templates(manifests).values()}
    assert used == set(made)
    assert all(one["automountServiceAccountToken"] is False for one in made.values())


def test_images_have_digests_unless_tags_were_allowed():
    for values, preset in chart.SAMPLES.values():
        for pod in chart.pod_templates(chart.render(values, preset)).values():
            for one in chart.containers(pod):
                assert ("@sha256:" in one["image"]) == (preset != "minimal")
