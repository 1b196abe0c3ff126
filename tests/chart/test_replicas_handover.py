"""An autoscaler that is turned on finds the replicas that there were: nobody sets them to 1 for a moment.

A field that a server-side apply leaves out, and that nobody else has written, falls back to the API server's default. The
cluster is a stand-in: what helm's `lookup` asks of it is answered as an API server would.
"""

from __future__ import annotations

import json

import pytest

from tests.support import chart
from tests.support.api_server import serving
from tests.support.chart import at, merged

HELM = {"manager": "helm", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1"}
HPA = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale", "fieldsType": "FieldsV1"}
STATUS = {
    "manager": "kube-controller-manager",
    "operation": "Update",
    "subresource": "status",
    "fieldsType": "FieldsV1",
}
REPLICAS, OTHER = {"f:spec": {"f:replicas": {}}}, {"f:spec": {"f:template": {}}, "f:metadata": {}}
VALUES = merged(
    chart.PLAIN,
    {
        "gateway": {"autoscaling": {"kind": "hpa"}},
        "monitoring": {"prometheusUrl": "http://prometheus:9090"},
        "pools": {
            "l4": {"weights": {"volume": {"kind": "emptyDir"}}, "compileCache": {"volume": {"kind": "emptyDir"}}, "autoscaling": {"kind": "keda"}},
            "h100": {
                "profile": "h100-x4",
                "autoscaling": {"kind": "keda"},
                "leaderWorker": {"enabled": True},
                "weights": {"volume": {"accessMode": "ReadWriteMany"}},
                "compileCache": {"volume": {"accessMode": "ReadWriteMany"}},
            },
        },
    },
)  # fmt: skip
SCALED = {
    "shop-qwen3-vl-gateway": "Deployment",
    "shop-qwen3-vl-engine-l4": "Deployment",
    "shop-qwen3-vl-engine-h100-lws": "LeaderWorkerSet",
}


@pytest.fixture
def sent(tmp_path):
    """What helm would send for `replicas` of each workload, where the cluster has them so and these wrote fields."""

    def go(replicas, managers, values=VALUES):
        there = [
            {
                "apiVersion": "apps/v1" if kind == "Deployment" else "leaderworkerset.x-k8s.io/v1",
                "kind": kind,
                "metadata": {
                    "name": name,
                    "namespace": chart.NAMESPACE,
                    "labels": {"app.kubernetes.io/managed-by": "Helm"},
                    "annotations": {
                        "meta.helm.sh/release-name": chart.RELEASE,
                        "meta.helm.sh/release-namespace": chart.NAMESPACE,
                    },
                    "managedFields": managers,
                },
                "spec": {"replicas": replicas},
            }
            for name, kind in SCALED.items()
        ]
        file = tmp_path / "values.json"
        file.write_text(json.dumps(values))
        with serving(there, tmp_path) as kubeconfig:
            argv = ["template", chart.RELEASE, str(chart.CHART), "--namespace", chart.NAMESPACE, "--values", str(file)]
            environ = {"KUBECONFIG": str(kubeconfig), "HOME": str(tmp_path), "HELM_CACHE_HOME": str(tmp_path)}
            done = chart.run_helm(
                *argv, "--dry-run=server", "--is-upgrade", "--disable-openapi-validation", environ=environ
            )
        manifests = {one["metadata"]["name"]: one for one in chart.parse(done.stdout) if one["kind"] in SCALED.values()}
        return {name: manifests[name]["spec"].get("replicas") for name in SCALED}

    return go


def test_what_only_helm_has_written_is_sent_again(sent):
    assert set(sent(4, [HELM | {"fieldsV1": REPLICAS}, STATUS | {"fieldsV1": OTHER}]).values()) == {4}
    # Helm 3 did not apply, it patched.
    assert set(sent(4, [HELM | {"operation": "Update", "fieldsV1": REPLICAS}]).values()) == {4}


@pytest.mark.parametrize(
    "managers", [[HPA | {"fieldsV1": REPLICAS}], [HPA | {"fieldsV1": REPLICAS}, HELM | {"fieldsV1": REPLICAS}]]
)
def test_what_an_autoscaler_has_written_is_its_own(sent, managers):
    assert set(sent(4, managers).values()) == {None}


def test_what_nobody_has_written_is_the_default_and_stays_so(sent):
    assert set(sent(1, [HELM | {"fieldsV1": OTHER}]).values()) == {None}
    assert set(sent(1, [HELM | {"fieldsV1": REPLICAS}]).values()) == {None}
    # An HPA leaves a workload without pods alone: 0 must not stay.
    assert set(sent(0, [HELM | {"fieldsV1": REPLICAS}]).values()) == {None}


def test_a_fixed_number_is_sent_whatever_is_there(sent):
    fixed = merged(VALUES, at("gateway", {"autoscaling": {"kind": "none"}, "replicas": 3}))
    assert sent(7, [HPA | {"fieldsV1": REPLICAS}], fixed)["shop-qwen3-vl-gateway"] == 3


def test_without_the_custom_resources_helm_says_which_and_sends_nothing(sent):
    """All objects are looked up before the first is sent, so nothing is half there."""
    with pytest.raises(chart.Refused, match=r'no matches for kind "PodMonitor"(.|\n)*ensure CRDs are installed first'):
        sent(1, [], merged(VALUES, at("monitoring.podMonitors", True)))
