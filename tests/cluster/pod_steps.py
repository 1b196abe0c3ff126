"""Steps that need running pods: a question about a picture, load during an upgrade, a rollback and the drain of a node."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.cluster import api_steps
from tests.cluster.cluster import CHART, INSTANCE, ROOT, Failed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.cluster.cluster import Cluster

LOAD = "load"
STOP = "/tmp/stop"
"""In the container of the load."""
COMPONENT = "app.kubernetes.io/component"


def two_nodes(cluster: Cluster) -> str:
    """Two nodes take pods, so that one of them can be drained at the end."""
    names = open_nodes(cluster)
    if len(names) < 2:
        raise Failed(
            f"draining needs two nodes that take pods, and there is {', '.join(names) or 'none'}: see "
            "tests/cluster/kind.yaml, or leave it out with --skip drain"
        )
    return ", ".join(names)


def open_nodes(cluster: Cluster) -> list[str]:
    """Names of the nodes that take pods of anybody."""
    nodes = json.loads(cluster.kubectl("get", "nodes", "--output", "json"))["items"]
    return [
        one["metadata"]["name"]
        for one in nodes
        if not one["spec"].get("unschedulable") and not one["spec"].get("taints")
    ]


def question(cluster: Cluster) -> str:
    """`helm test`: the right answer to a question about a picture, through the Service."""
    told = cluster.helm("test", cluster.release, "--logs", "--timeout", f"{cluster.timeout_s}s")
    answers = [line for line in told.splitlines() if line.endswith(("(right)", "(wrong)"))]
    return answers[-1] if answers else "helm test ended with 0"


def upgrade_under_load(cluster: Cluster) -> str:
    """Every request is answered while gateways and engines are replaced."""
    with load(cluster) as outcome:
        seen = api_steps.upgrade(cluster, wait=True)
    return f"{outcome}; {seen}"


def rollback_under_load(cluster: Cluster) -> str:
    """Every request is answered while the first revision comes back."""
    with load(cluster) as outcome:
        seen = api_steps.rollback(cluster, wait=True)
    return f"{outcome}; {seen}"


def drain_a_node(cluster: Cluster) -> str:
    """Every request is answered while a node with a gateway is emptied; the pods come back elsewhere."""
    avoid = node_to_drain(pods(cluster), open_nodes(cluster))
    with load(cluster, avoid) as outcome:
        try:
            cluster.kubectl(
                "drain", avoid, "--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={INSTANCE}={cluster.release}",
                f"--timeout={cluster.timeout_s}s",
            )  # fmt: skip
            cluster.kubectl(
                "wait", "deployments", "--all", "--for=condition=Available", f"--timeout={cluster.timeout_s}s"
            )
            cluster.wait_for("all replicas are ready", lambda: all_ready(cluster))
            if left := [one["metadata"]["name"] for one in pods(cluster) if one["spec"].get("nodeName") == avoid]:
                raise Failed(f"{avoid} was drained and still has {', '.join(left)}")
        finally:
            cluster.kubectl("uncordon", avoid)
    return f"{outcome}; {avoid} was empty and all replicas were ready elsewhere"


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    """The release's pods that stay: one on its way out is none of a node's."""
    selector = f"{INSTANCE}={cluster.release}"
    found = json.loads(cluster.kubectl("get", "pods", "--selector", selector, "--output", "json"))["items"]
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


def node_to_drain(there: Sequence[Mapping[str, Any]], nodes: Sequence[str]) -> str:
    """A node with a gateway and without an engine: who waits for the only engine may wait for longer than a drain lasts."""
    on = {
        part: {one["spec"].get("nodeName") for one in there if one["metadata"]["labels"].get(COMPONENT) == part}
        for part in ("gateway", "engine")
    }
    fit = sorted(node for node in nodes if node in on["gateway"] - on["engine"])
    if not fit:
        raise Failed(
            f"no node has a gateway and no engine (gateways: {sorted(map(str, on['gateway']))}, engines: "
            f"{sorted(map(str, on['engine']))}): the requests that wait for an engine would end with their gateway"
        )
    return fit[0]


def all_ready(cluster: Cluster) -> bool:
    """Whether each Deployment has the replicas that it should have."""
    return all(
        one["status"].get("readyReplicas", 0) == one["spec"]["replicas"]
        for one in cluster.objects("deployments.apps", quiet=True).values()
    )


@dataclass
class Outcome:
    """What the load came to, once it has ended."""

    answers: int = 0

    def __str__(self) -> str:
        return f"{self.answers} answers, 0 failures"


@contextmanager
def load(cluster: Cluster, avoid: str | None = None) -> Iterator[Outcome]:
    """Ask without a pause for as long as the block runs. Raises Failed when one answer did not come."""
    seen = Outcome()
    files = [CHART / "files" / "test" / name for name in ("ask.py", "picture.jpg")] + [
        ROOT / "tests" / "cluster" / "load.py"
    ]
    config = ["create", "configmap", LOAD, *(f"--from-file={path}" for path in files)]
    cluster.kubectl(*config)
    cluster.kubectl("create", "--filename", "-", stdin=json.dumps(pod(cluster, avoid)))
    try:
        cluster.kubectl("wait", f"pod/{LOAD}", "--for=condition=Ready", f"--timeout={cluster.timeout_s}s")
        yield seen
        cluster.kubectl("exec", LOAD, "--", "touch", STOP)

        def ended() -> bool:
            return phase(cluster) in {"Succeeded", "Failed"}

        cluster.wait_for("the load comes to its end", ended)
        told = cluster.kubectl("logs", LOAD).strip().splitlines()
        outcome = json.loads(told[-1])
        seen.answers = outcome["answers"]
        if outcome["failures"] or not outcome["answers"]:
            raise Failed(f"requests failed: {outcome}")
    finally:
        cluster.kubectl("delete", f"pod/{LOAD}", f"configmap/{LOAD}", "--ignore-not-found", "--grace-period=0")


def phase(cluster: Cluster) -> str:
    """Where the pod with the load is."""
    return str(json.loads(cluster.kubectl("get", f"pod/{LOAD}", "--output", "json", quiet=True))["status"]["phase"])


def pod(cluster: Cluster, avoid: str | None) -> dict[str, Any]:
    """The pod that asks: the gateway's image, restricted as every other."""
    _, gateway = api_steps.gateway_of(cluster)
    container = gateway["spec"]["template"]["spec"]["containers"][0]
    name = gateway["metadata"]["name"]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": LOAD,
                "image": container["image"],
                "imagePullPolicy": container["imagePullPolicy"],
                "command": ["python3", "/test/load.py", f"http://{name}", "/test/picture.jpg", STOP],
                "env": [
                    {
                        "name": "API_KEY",
                        "valueFrom": {
                            "secretKeyRef": {"name": name.removesuffix("gateway") + "keys", "key": "first-key"}
                        },
                    }
                ],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "test", "mountPath": "/test"}],
            }
        ],
        "volumes": [{"name": "test", "configMap": {"name": LOAD}}],
    }
    if avoid:
        spec["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            # The node's name, not its label: a cloud's hostname label may differ.
                            "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [avoid]}]
                        }
                    ]
                }
            }
        }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": LOAD}, "spec": spec}
