"""What an API server, a kubelet or a drain refuses though every schema is kept: rules between fields, and between objects.

Written after Kubernetes' own validation (pkg/apis/core/validation and its neighbours) and the eviction API, for what this chart
renders. References to what the user brings (Secrets, claims, classes) are not looked for.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tests.support import chart

if TYPE_CHECKING:
    from collections.abc import Iterator

    Manifest = dict[str, Any]

PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
QUANTITY = re.compile(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
UNITS = {"": 1, "m": Fraction(1, 1000), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{unit}i": 1024**power for power, unit in enumerate("KMGT", start=1)
}
NATIVE = {"cpu", "memory", "ephemeral-storage"}
OURS = re.compile(rf"{chart.RELEASE}-qwen3-vl-.+")
"""Names that the chart gives; others are the user's."""


def amount(quantity: str) -> Fraction:
    """A quantity as a number: "1Gi", "500m"."""
    found = QUANTITY.fullmatch(str(quantity))
    assert found, quantity
    return Fraction(found[1]) * UNITS[found[2] or ""]


def refusals(manifests: list[Manifest]) -> list[str]:
    """What would be refused, or would wait for ever."""
    there = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    pods = chart.pod_templates(manifests)
    made = {
        one["metadata"]["name"]: [claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])]
        for one in chart.kind(manifests, "StatefulSet")
    }
    found = [
        f"{name}: {fault}"
        for name, pod in pods.items()
        for fault in (*_pod(pod, made.get(name, [])), *_missing(pod, there))
    ]
    for (kind, name), one in there.items():
        rules = {
            "Service": _service, "Deployment": _workload, "StatefulSet": _workload, "PodDisruptionBudget": _budget,
            "HorizontalPodAutoscaler": _scaler, "Ingress": _ingress,
        }  # fmt: skip
        if rule := rules.get(kind):
            found += [f"{kind}/{name}: {fault}" for fault in rule(one, pods, there)]
    return found


def _twice(names: list[Any]) -> list[Any]:
    return sorted({name for name in names if names.count(name) > 1})


def _pod(pod: Manifest, claims: list[str]) -> Iterator[str]:
    spec, labels = pod["spec"], pod["metadata"]["labels"]
    volumes = [one["name"] for one in spec.get("volumes", [])] + claims
    containers = chart.containers(pod)
    yield from (f"two {what} {one}" for what, names in (
        ("volumes", volumes), ("containers", [one["name"] for one in containers]),
    ) for one in _twice(names))  # fmt: skip
    mounted = {mount["name"] for one in containers for mount in one.get("volumeMounts", [])}
    yield from (f"volume {name} is mounted nowhere" for name in set(volumes) - mounted)
    for one in containers:
        yield from (f"{one['name']}: {fault}" for fault in _container(one, volumes))
    selectors = [one["labelSelector"] for one in spec.get("topologySpreadConstraints", [])] + [
        term["podAffinityTerm"]["labelSelector"]
        for term in spec.get("affinity", {})
        .get("podAntiAffinity", {})
        .get("preferredDuringSchedulingIgnoredDuringExecution", [])
    ]
    if any(not one["matchLabels"].items() <= labels.items() for one in selectors):
        yield "a spread or affinity that counts other pods than these"
    keys = [(one["topologyKey"], one["whenUnsatisfiable"]) for one in spec.get("topologySpreadConstraints", [])]
    yield from (f"two spreads over {one[0]}" for one in _twice(keys))


def _container(one: Manifest, volumes: list[str]) -> Iterator[str]:
    mounts = one.get("volumeMounts", [])
    yield from (f"mounts {name}, which is no volume" for name in {mount["name"] for mount in mounts} - set(volumes))
    yield from (f"two mounts at {path}" for path in _twice([mount["mountPath"] for mount in mounts]))
    names = [port["name"] for port in one.get("ports", [])]
    yield from (f"port {name} is no service name" for name in names if not PORT_NAME.fullmatch(name))
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = one.get(kind, {})
        port = probe.get("httpGet", probe.get("tcpSocket", {})).get("port")
        if isinstance(port, str) and port not in names:
            yield f"{kind} at port {port}, which is not there"
        if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            yield f"{kind}: successThreshold must be 1"
    resources = one.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for name, quantity in requests.items():
        if name in limits and amount(quantity) > amount(limits[name]):
            yield f"requests more {name} than its limit"
    for name, quantity in (requests | limits).items():
        if name not in NATIVE and (amount(quantity).denominator != 1 or limits.get(name) is None):
            yield f"{name} must be a whole number, and a limit"


def _missing(pod: Manifest, there: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    """References to objects that the chart should have made."""
    spec = pod["spec"]
    wanted = [("ServiceAccount", spec["serviceAccountName"])]
    for volume in spec.get("volumes", []):
        wanted += [
            ("Secret", volume.get("secret", {}).get("secretName")),
            ("ConfigMap", volume.get("configMap", {}).get("name")),
            ("PersistentVolumeClaim", volume.get("persistentVolumeClaim", {}).get("claimName")),
        ]
    for one in chart.containers(pod):
        for variable in one.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference and (secret := there.get(("Secret", reference["name"]))):
                if reference["key"] not in secret["data"]:
                    yield f"{variable['name']} asks for {reference['key']}, which Secret {reference['name']} does not have"
            elif reference:
                wanted.append(("Secret", reference["name"]))
    yield from (
        f"{kind} {name} is not there"
        for kind, name in wanted
        if name and OURS.fullmatch(name) and (kind, name) not in there
    )


def _service(one: Manifest, pods: dict[str, Manifest], _: object) -> Iterator[str]:
    spec = one["spec"]
    selector = {key: value for key, value in spec["selector"].items() if not key.startswith("leaderworkerset")}
    ports = {port["targetPort"] for port in spec["ports"]}
    # A LeaderWorkerSet's workers have its labels, too, and answer nothing: only leaders are chosen.
    chosen = [
        {port["name"] for part in chart.containers(pod) for port in part.get("ports", [])}
        for name, pod in pods.items()
        if selector.items() <= pod["metadata"]["labels"].items() and not name.endswith("/workerTemplate")
    ]
    if not chosen:
        yield "selects no pod"
    yield from (f"target port {port} is not there" for port in ports for names in chosen if port not in names)


def _workload(one: Manifest, _: object, there: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    spec = one["spec"]
    if not spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items():
        yield "its selector does not match its own pods"
    steps = spec.get("strategy", {}).get("rollingUpdate", {"maxSurge": 1})
    if not any(steps.values()):
        yield "maxSurge and maxUnavailable are both 0"
    if (service := spec.get("serviceName")) and ("Service", service) not in there:
        yield f"its Service {service} is not there"
    if spec["template"]["spec"].get("restartPolicy", "Always") != "Always":
        yield "restartPolicy must be Always"


def _budget(one: Manifest, _: object, there: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    """The eviction API: with all pods healthy at least one may go, however few there are."""
    spec = one["spec"]
    if ("minAvailable" in spec) == ("maxUnavailable" in spec):
        yield "one of minAvailable and maxUnavailable"
    for (kind, name), other in there.items():
        if kind not in {"Deployment", "StatefulSet"}:
            continue
        if spec["selector"]["matchLabels"].items() <= other["spec"]["template"]["metadata"]["labels"].items():
            pods = max(1, other["spec"].get("replicas", 1))
            allowed = pods - spec["minAvailable"] if "minAvailable" in spec else spec["maxUnavailable"]
            if allowed < 1:
                yield f"no pod of {name} could ever be evicted: a drain would wait for ever"
    if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "a pod that never became ready would hold a drain up"


def _scaler(one: Manifest, _: object, there: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    spec = one["spec"]
    if spec["minReplicas"] > spec["maxReplicas"]:
        yield "minReplicas is more than maxReplicas"
    target = there.get((spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]))
    if target is None:
        yield "its target is not there"
    for metric in spec["metrics"]:
        if metric["type"] == "Resource" and target:
            asked = [part["resources"].get("requests", {}) for part in chart.containers(target["spec"]["template"])]
            if any(metric["resource"]["name"] not in requests for requests in asked):
                yield f"a share of {metric['resource']['name']} that is not requested"


def _ingress(one: Manifest, _: object, there: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    for rule in one["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            service = there.get(("Service", backend["name"]))
            if not service or backend["port"]["name"] not in {port["name"] for port in service["spec"]["ports"]}:
                yield f"Service {backend['name']} with port {backend['port']['name']} is not there"
