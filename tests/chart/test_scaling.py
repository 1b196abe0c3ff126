"""Who scales what by which figure."""

from __future__ import annotations

import pytest

from serving import profile
from tests.support import chart
from tests.support.chart import at, merged

PROMETHEUS = at("monitoring.prometheusUrl", "http://prometheus:9090")
GATEWAY = 'namespace="vision",app_kubernetes_io_instance="shop",app_kubernetes_io_component="gateway"'
DEMAND = (
    f"(sum(gateway_queue_depth{{{GATEWAY}}}) or vector(0)) "
    f"+ (sum(gateway_engine_in_flight_requests{{{GATEWAY}}}) or vector(0))"
)


def scaled(**pools):
    """Pools on KEDA, or of a fixed size, and their demand triggers."""
    values = {"pools": {"l4": None}}
    for name, replicas in pools.items():
        shared = {"weights": {"volume": {"kind": "emptyDir"}}, "compileCache": {"volume": {"kind": "emptyDir"}}}
        size = {"replicas": replicas} if replicas else {"autoscaling": {"kind": "keda"}}
        values["pools"][name] = {"profile": "l4", **shared, **size}
    manifests = chart.plain(values, PROMETHEUS)
    return {
        one["metadata"]["labels"][chart.PER_POD]: one["spec"]["triggers"][0]["metadata"]
        for one in chart.kind(manifests, "ScaledObject")
    }


def test_engines_follow_what_waits_in_the_gateway_or_is_at_engines():
    assert scaled(a=0)["a"] == {
        "serverAddress": "http://prometheus:9090",
        "query": DEMAND,
        "threshold": str(profile.load("l4").flags["max-num-seqs"] * 3 // 4),
        "activationThreshold": "0",
    }


def test_a_pool_of_fixed_size_serves_its_part_first():
    assert scaled(base=2, spot=0)["spot"]["query"] == f"clamp_min({DEMAND} - 48, 0)"


def test_scaled_pools_share_the_demand():
    found = scaled(a=0, b=0)
    assert found["a"]["query"] == found["b"]["query"] == f"({DEMAND}) / 2"


def test_vllms_own_queue_comes_second():
    manifests = chart.plain(at("pools.l4.autoscaling", {"kind": "keda", "maxReplicas": 1}), PROMETHEUS)
    second = chart.only(manifests, "ScaledObject", "-l4")["spec"]["triggers"][1]["metadata"]
    assert 'vllm:num_requests_waiting{namespace="vision"' in second["query"]
    assert 'qwen3_vl_pool="l4"' in second["query"]
    assert second["threshold"] == "4"


def test_metrics_are_named_as_they_are():
    # Imported here: the names are registered with Prometheus' client once for each process.
    from gateway import telemetry

    assert telemetry.QUEUE_DEPTH._name == "gateway_queue_depth"
    assert telemetry.ENGINE_IN_FLIGHT._name == "gateway_engine_in_flight_requests"
    assert telemetry.IN_FLIGHT._name == "gateway_in_flight_requests"


def test_a_prometheus_that_is_away_takes_no_engine_away():
    fallback = chart.only(chart.render(preset="production"), "ScaledObject", "-spot")["spec"]["fallback"]
    assert fallback == {"failureThreshold": 4, "replicas": 1, "behavior": "currentReplicasIfHigher"}


@pytest.mark.parametrize("kind", ["keda", "hpa"])
def test_engines_come_fast_and_go_slowly(kind):
    manifests = chart.plain(at("pools.l4.autoscaling", {"kind": kind, "maxReplicas": 1}), PROMETHEUS)
    if kind == "keda":
        spec = chart.only(manifests, "ScaledObject", "-l4")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    else:
        spec = chart.only(manifests, "HorizontalPodAutoscaler", "-l4")["spec"]
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    assert spec["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_without_keda_an_external_metric_holds_the_demand():
    manifests = chart.plain(at("pools.l4.autoscaling", {"kind": "hpa", "maxReplicas": 1}))
    (metric,) = chart.only(manifests, "HorizontalPodAutoscaler", "-l4")["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "qwen3_vl_engine_demand"
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "24"}


def test_gateways_scale_by_cpu_and_with_keda_by_requests_too():
    (metric,) = chart.only(chart.plain(at("gateway.autoscaling.kind", "hpa")), "HorizontalPodAutoscaler", "-gateway")[
        "spec"
    ]["metrics"]
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    triggers = chart.only(chart.plain(at("gateway.autoscaling.kind", "keda"), PROMETHEUS), "ScaledObject", "-gateway")[
        "spec"
    ]["triggers"]
    assert [one["type"] for one in triggers] == ["cpu", "prometheus"]
    assert triggers[1]["metadata"]["query"] == f"sum(gateway_in_flight_requests{{{GATEWAY}}})"


def test_monitors_label_pods_as_the_queries_ask_for_them():
    monitors = chart.kind(chart.render(chart.EVERYTHING), "PodMonitor")
    assert len(monitors) == 2
    for one in monitors:
        labels = {
            label.replace(".", "_").replace("/", "_").replace("-", "_") for label in one["spec"]["podTargetLabels"]
        }
        assert labels == {"app_kubernetes_io_instance", "app_kubernetes_io_component", "qwen3_vl_pool"}


def test_a_scaled_leader_worker_set_is_named_as_one():
    values = merged(chart.MULTI_NODE, PROMETHEUS, at("pools.h100.autoscaling.kind", "keda"))
    target = chart.only(chart.render(values), "ScaledObject", "-h100")["spec"]["scaleTargetRef"]
    assert target["kind"] == "LeaderWorkerSet"
