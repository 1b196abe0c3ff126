"""What no schema says and an API server, a kubelet or a drain holds all the same: rules between fields and between objects."""

from __future__ import annotations

import copy

import pytest

from tests.support import chart
from tests.support.admission import amount, refusals
from tests.support.chart import at, merged

GATEWAY, ENGINE, REDIS = ("Deployment", "-gateway"), ("Deployment", "-engine-l4"), ("StatefulSet", "-redis")
VALUES = merged(
    chart.PLAIN,
    {
        "gateway": {"autoscaling": {"kind": "hpa"}},
        "exposure": {
            "trustedProxies": ["10.0.0.0/8"],
            "ingress": {"enabled": True, "hosts": ["vision.example.com"], "tlsSecret": "tls"},
        },
    },
)
"""With every kind that has a rule."""


def test_nothing_that_any_sample_renders_is_refused(manifests):
    assert refusals(manifests) == []


def test_nothing_is_refused_however_few_there_are():
    one = merged(chart.PLAIN, at("gateway.replicas", 1), at("pools.l4.replicas", 0))
    assert refusals(chart.render(merged(one, at("gateway.settings.hold_without_engine", True)))) == []
    assert refusals(chart.render(VALUES)) == []


POD = ("spec", "template", "spec")
FIRST = (*POD, "containers", 0)
WRONG = {
    "two volumes tmp": (GATEWAY, (*POD, "volumes", 0, "name"), "tmp"),
    "is mounted nowhere": (GATEWAY, (*FIRST, "volumeMounts", 0, "name"), "tmp"),
    "which is no volume": (GATEWAY, (*FIRST, "volumeMounts", 0, "name"), "other"),
    "two mounts at /tmp": (GATEWAY, (*FIRST, "volumeMounts", 0, "mountPath"), "/tmp"),
    "two containers engine": (ENGINE, (*POD, "initContainers", 0, "name"), "engine"),
    "counts other pods": (GATEWAY, (*POD, "topologySpreadConstraints", 0, "labelSelector", "matchLabels", "x"), "y"),
    "two spreads over kubernetes.io/hostname": (GATEWAY, (*POD, "topologySpreadConstraints", 0, "topologyKey"), "kubernetes.io/hostname"),
    "is no service name": (GATEWAY, (*FIRST, "ports", 1, "name"), "metrics-of-gateways"),
    "livenessProbe at port web": (GATEWAY, (*FIRST, "livenessProbe", "httpGet", "port"), "web"),
    "successThreshold must be 1": (GATEWAY, (*FIRST, "startupProbe", "successThreshold"), 2),
    "requests more memory": (GATEWAY, (*FIRST, "resources", "requests", "memory"), "3Gi"),
    "nvidia.com/gpu must be a whole number": (ENGINE, (*FIRST, "resources", "limits", "nvidia.com/gpu"), "500m"),
    "ServiceAccount shop-qwen3-vl-other is not there": (GATEWAY, (*POD, "serviceAccountName"), "shop-qwen3-vl-other"),
    "Secret shop-qwen3-vl-other is not there": (GATEWAY, (*POD, "volumes", 0, "secret", "secretName"), "shop-qwen3-vl-other"),
    "ConfigMap shop-qwen3-vl-other is not there": (REDIS, (*POD, "volumes", 0, "configMap", "name"), "shop-qwen3-vl-other"),
    "does not have": (REDIS, (*FIRST, "env", 0, "valueFrom", "secretKeyRef", "key"), "password"),
    "selects no pod": (("Service", "-gateway"), ("spec", "selector", "x"), "y"),
    "target port web is not there": (("Service", "-gateway"), ("spec", "ports", 0, "targetPort"), "web"),
    "does not match its own pods": (GATEWAY, ("spec", "selector", "matchLabels", "x"), "y"),
    "are both 0": (ENGINE, ("spec", "strategy", "rollingUpdate", "maxUnavailable"), 0),
    "its Service other is not there": (REDIS, ("spec", "serviceName"), "other"),
    "restartPolicy must be Always": (GATEWAY, (*POD, "restartPolicy"), "Never"),
    "a drain would wait for ever": (("PodDisruptionBudget", "-engine-l4"), ("spec", "maxUnavailable"), 0),
    "one of minAvailable": (("PodDisruptionBudget", "-engine-l4"), ("spec", "minAvailable"), 1),
    "never became ready": (("PodDisruptionBudget", "-gateway"), ("spec", "unhealthyPodEvictionPolicy"), "IfHealthyBudget"),
    "minReplicas is more": (("HorizontalPodAutoscaler", "-gateway"), ("spec", "minReplicas"), 9),
    "its target is not there": (("HorizontalPodAutoscaler", "-gateway"), ("spec", "scaleTargetRef", "name"), "x"),
    "a share of cpu that is not requested": (GATEWAY, (*FIRST, "resources", "requests"), {"memory": "1Gi"}),
    "with port web is not there": (
        ("Ingress", "-gateway"), ("spec", "rules", 0, "http", "paths", 0, "backend", "service", "port", "name"), "web",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("told", "wrong"), WRONG.items(), ids=WRONG)
def test_each_rule_finds_what_breaks_it(told, wrong):
    (kind, suffix), path, value = wrong
    manifests = copy.deepcopy(chart.render(VALUES))
    node = chart.only(manifests, kind, suffix)
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert any(told in one for one in refusals(manifests)), refusals(manifests)


def test_quantities_are_compared_by_what_they_are():
    assert amount("1Gi") > amount("1G") > amount("999M")
    assert amount("1500m") == amount("1.5")
