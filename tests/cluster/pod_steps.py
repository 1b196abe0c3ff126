"""Steps that need running pods: a question about a picture, load during an upgrade, a rollback and the drain of a node."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.cluster import api_steps
from tests.cluster.cluster import CHART, INSTANCE, ROOT, Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.cluster import Cluster

LOAD = "load"
STOP = "/tmp/stop"
"""In the container of the load."""
COMPONENT = "app.kubernetes.io/component"


def question(cluster: Cluster) -> None:
    """`helm test`: the right answer to a question about a picture, through the Service."""
    cluster.helm("test", cluster.release, "--logs", "--timeout", f"{cluster.timeout_s}s")


def upgrade_under_load(cluster: Cluster) -> None:
    """Every request is answered while gateways and engines are replaced."""
    with load(cluster):
        api_steps.upgrade(cluster, wait=True)


def rollback_under_load(cluster: Cluster) -> None:
    """Every request is answered while the first revision comes back."""
    with load(cluster):
        api_steps.rollback(cluster, wait=True)


def drain_a_node(cluster: Cluster) -> None:
    """Every request is answered while a node with a gateway is emptied; the pods come back elsewhere."""
    nodes = json.loads(cluster.kubectl("get", "nodes", "--output", "json"))["items"]
    open_nodes = [
        one["metadata"]["name"]
        for one in nodes
        if not one["spec"].get("unschedulable") and not one["spec"].get("taints")
    ]
    if len(open_nodes) < 2:
        raise Failed(
            "draining needs two nodes that take pods: see tests/cluster/kind.yaml, or leave it out with --skip drain"
        )
    selector = f"{INSTANCE}={cluster.release},{COMPONENT}=gateway"
    pods = json.loads(cluster.kubectl("get", "pods", "--selector", selector, "--output", "json"))["items"]
    with load(cluster, avoid := pods[0]["spec"]["nodeName"]):
        try:
            cluster.kubectl(
                "drain", avoid, "--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={INSTANCE}={cluster.release}",
                f"--timeout={cluster.timeout_s}s",
            )  # fmt: skip
            cluster.kubectl(
                "wait", "deployments", "--all", "--for=condition=Available", f"--timeout={cluster.timeout_s}s"
            )
            cluster.wait_for("all replicas are ready", lambda: all_ready(cluster))
        finally:
            cluster.kubectl("uncordon", avoid)


def all_ready(cluster: Cluster) -> bool:
    """Whether each Deployment has the replicas that it should have."""
    return all(
        one["status"].get("readyReplicas", 0) == one["spec"]["replicas"]
        for one in cluster.objects("deployments.apps").values()
    )


@contextmanager
def load(cluster: Cluster, avoid: str | None = None) -> Iterator[None]:
    """Ask without a pause for as long as the block runs. Raises Failed when one answer did not come."""
    files = [CHART / "files" / "test" / name for name in ("ask.py", "picture.jpg")] + [
        ROOT / "tests" / "cluster" / "load.py"
    ]
    config = ["create", "configmap", LOAD, *(f"--from-file={path}" for path in files)]
    cluster.kubectl(*config)
    cluster.kubectl("create", "--filename", "-", stdin=json.dumps(pod(cluster, avoid)))
    try:
        cluster.kubectl("wait", f"pod/{LOAD}", "--for=condition=Ready", f"--timeout={cluster.timeout_s}s")
        yield
        cluster.kubectl("exec", LOAD, "--", "touch", STOP)

        def ended() -> bool:
            return phase(cluster) in {"Succeeded", "Failed"}

        cluster.wait_for("the load comes to its end", ended)
        told = cluster.kubectl("logs", LOAD).strip().splitlines()
        outcome = json.loads(told[-1])
        cluster.say(f"    {outcome['answers']} answers, {len(outcome['failures'])} failures")
        if outcome["failures"] or not outcome["answers"]:
            raise Failed(f"requests failed: {outcome}")
    finally:
        cluster.kubectl("delete", f"pod/{LOAD}", f"configmap/{LOAD}", "--ignore-not-found", "--grace-period=0")


def phase(cluster: Cluster) -> str:
    """Where the pod with the load is."""
    return str(json.loads(cluster.kubectl("get", f"pod/{LOAD}", "--output", "json"))["status"]["phase"])


def pod(cluster: Cluster, avoid: str | None) -> dict[str, Any]:
    """The pod that asks: the gateway's image, restricted as every other."""
    gateway = next(one for name, one in cluster.objects("deployments.apps").items() if name.endswith("-gateway"))
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
                            "matchExpressions": [
                                {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [avoid]}
                            ]
                        }
                    ]
                }
            }
        }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": LOAD}, "spec": spec}
