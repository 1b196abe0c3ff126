"""Names that YAML would take for something else: `123`, `true`, `1e3` and `null` are good names of releases, namespaces, Secrets.

Unquoted, they reach the API server as numbers and booleans, which it refuses for a label or a name.
"""

from __future__ import annotations

import json

import pytest

from tests.support import chart
from tests.support.chart import merged
from tests.support.schemas import faults

WORDS = ["123", "1e3", "true", "null", "0x1f", "on"]
POOLS = ["on", "null", "y"]
"""A pool's name begins with a letter."""


def named(word):
    """Every value that is somebody's name, with this word."""
    volume = {"kind": "existingClaim", "existingClaim": word, "accessMode": "ReadWriteMany"}
    return merged(
        chart.PLAIN,
        {
            "nameOverride": word,
            "imagePullSecrets": [word],
            "keys": {"existingSecret": word, "existingSecretKey": word},
            "secrets": {"existingSecret": word},
            "gateway": {"priorityClassName": word, "nodeSelector": {word: word}, "podAnnotations": {word: word}, "env": {"NAME": word}},
            "engine": {"priorityClassName": word, "runtimeClassName": word, "gpu": {"products": [word]}, "env": {"NAME": word}},
            "pools": {
                "l4": {"weights": {"credentialsSecret": word, "env": {"AWS_REGION": word}, "volume": volume}},
                **{pool: {"profile": "l4", "weights": {"volume": {"storageClass": word}}} for pool in POOLS},
                "node": {"profile": "l4", "weights": {"volume": {"kind": "hostPath", "hostPath": "/mnt/a, b: {c}"}}},
                "hpa": {"profile": "l4", "autoscaling": {"kind": "hpa", "maxReplicas": 1, "externalMetric": word}},
                "many": {
                    "profile": "h100-x4",
                    "leaderWorker": {"enabled": True, "topologyKey": word},
                    "weights": {"volume": volume},
                    "compileCache": {"volume": volume},
                },
            },
            "redis": {"storageClass": word, "maxMemoryMiB": 1_000_000},
            "exposure": {
                "trustedProxies": ["10.0.0.0/8"],
                "service": {"annotations": {word: word}},
                "ingress": {"enabled": True, "className": word, "hosts": [word], "tlsSecret": word, "annotations": {word: word}},
                "httpRoute": {"enabled": True, "parentRefs": [{"name": word, "namespace": word}]},
            },
            "monitoring": {"podMonitors": True, "rules": True, "dashboards": True, "labels": {word: word}},
            "tests": {"apiKeySecret": {"name": word, "key": word}},
        },
    )  # fmt: skip


@pytest.fixture(scope="module", params=WORDS)
def rendered(request, tmp_path_factory):
    values = tmp_path_factory.mktemp("values") / "values.json"
    values.write_text(json.dumps(named(request.param)))
    words = ["template", request.param, str(chart.CHART), "--namespace", request.param, "--values", str(values)]
    return request.param, chart.parse(chart.run_helm(*words).stdout)


def test_they_stay_text(rendered):
    word, manifests = rendered
    assert faults({word: manifests}, ["1.37"]) == []


def test_each_is_where_it_belongs(rendered):
    word, manifests = rendered
    for one in manifests:
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == word
    pod = chart.pod_templates(manifests)[chart.only(manifests, "Deployment", "-gateway")["metadata"]["name"]]
    assert pod["spec"]["priorityClassName"] == word
    assert pod["spec"]["nodeSelector"] == {word: word}
    [volume] = chart.kind(manifests, "PersistentVolume")
    assert volume["spec"]["hostPath"]["path"] == "/mnt/a, b: {c}"
    assert "maxmemory 1000000mb" in chart.only(manifests, "ConfigMap", "-redis")["data"]["valkey.conf"]
    pools = {pod["metadata"]["labels"].get(chart.PER_POD) for pod in chart.pod_templates(manifests).values()}
    assert set(POOLS) <= pools
