"""Who scales what by which figure."""

from __future__ import annotations

import json

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
        "threshold": "16",
        "activationThreshold": "0",
    }


def simulated():
    """The table "Targets of each profile" of docs/autoscaling.md: profile -> (most at once, target)."""
    text = (chart.ROOT / "docs" / "autoscaling.md").read_text()
    table = text.partition("### Targets of each profile")[2].partition("<!--")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return {name: (int(most), int(target)) for name, most, target, _ in rows[2:]}


@pytest.mark.parametrize("name", [name for name in profile.names() if name != "cpu"])
def test_targets_are_those_of_the_simulation(name):
    most, target = simulated()[name]
    facts = json.loads((chart.CHART / "files" / "profiles.json").read_text())["profiles"][name]
    assert (facts["requests"], facts["targetInFlight"]) == (most, target)
    source = {} if profile.load(name).model else {"source": "s3://models/w4a16"}
    pools = {"l4": None, "one": {"profile": name, "autoscaling": {"kind": "keda", "maxReplicas": 1}, "weights": source}}
    trigger = chart.only(chart.plain({"pools": pools}, PROMETHEUS), "ScaledObject", "-one")["spec"]["triggers"][0]
    assert trigger["metadata"]["threshold"] == str(target)


def test_a_target_of_ones_own_wins():
    values = at("pools.l4.autoscaling", {"kind": "keda", "maxReplicas": 1, "requestsPerReplica": 7})
    trigger = chart.only(chart.plain(values, PROMETHEUS), "ScaledObject", "-l4")["spec"]["triggers"][0]
    assert trigger["metadata"]["threshold"] == "7"


@pytest.mark.parametrize(
    ("values", "each"),
    [
        (at("gateway.replicas", 1), 32),
        (at("gateway.replicas", 2), 16),
        (merged(at("gateway.replicas", 3), at("gateway.settings.workers", 2)), 6),
        (at("gateway.autoscaling", {"kind": "hpa", "minReplicas": 4, "maxReplicas": 9}), 8),
        (merged(at("gateway.replicas", 1), at("pools.big", {"profile": "h100"})), 256),
        (at("gateway.settings.engine_max_in_flight", 5), 5),
    ],
)
def test_no_more_is_sent_to_an_engine_than_it_runs_at_once(values, each):
    pod = chart.pod_templates(chart.plain(values))["shop-qwen3-vl-gateway"]
    assert chart.environment(pod["spec"]["containers"][0])["GATEWAY_ENGINE_MAX_IN_FLIGHT"] == str(each)


def test_a_pool_of_fixed_size_serves_its_part_first():
    assert scaled(base=2, spot=0)["spot"]["query"] == f"clamp_min({DEMAND} - 32, 0)"


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
    assert spec["behavior"]["scaleUp"] == {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}, {"type": "Pods", "value": 4, "periodSeconds": 15}],
        "selectPolicy": "Max",
    }  # fmt: skip
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    assert spec["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_from_zero_engines_come_at_the_pace_of_a_cold_start():
    spec = chart.only(chart.render(preset="production"), "ScaledObject", "-spot")["spec"]
    assert (spec["minReplicaCount"], spec["cooldownPeriod"], spec["pollingInterval"]) == (0, 300, 15)
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleUp"]["policies"] == [
        {"type": "Percent", "value": 100, "periodSeconds": 180},
        {"type": "Pods", "value": 1, "periodSeconds": 180},
    ]


def test_without_keda_an_external_metric_holds_the_demand():
    manifests = chart.plain(at("pools.l4.autoscaling", {"kind": "hpa", "maxReplicas": 1}))
    (metric,) = chart.only(manifests, "HorizontalPodAutoscaler", "-l4")["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "qwen3_vl_engine_demand"
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "16"}


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
    manifests = chart.render(values)
    target = chart.only(manifests, "ScaledObject", "-h100")["spec"]["scaleTargetRef"]
    assert target["kind"] == "LeaderWorkerSet"
    group = chart.only(manifests, "LeaderWorkerSet", "-h100-lws")
    assert target["name"] == group["metadata"]["name"]
    assert "replicas" not in group["spec"]
