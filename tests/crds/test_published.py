"""`make chart-crds`: the chart's custom resources, and our schemas of them, against what the projects publish.

`@kubernetes-models` makes validators and declarations from the Go types of KEDA, the Prometheus operator and Gateway API. The
validators judge types, enums and what is needed, and let unknown fields pass; tests/chart/crds.yaml lets none pass, so it
is held against the declarations, field by field. Without network nothing of this runs: `make chart` has the schemas alone.
"""

from __future__ import annotations

import copy
import functools
import json
import subprocess

import pytest

from tests.crds.published_types import Type, differences
from tests.support import chart
from tests.support.schemas import CRDS

MODULES = chart.ROOT / ".cache" / "chart-crds" / "node_modules"
KEDA, OPERATOR, GATEWAY = (f"@kubernetes-models/{name}" for name in ("keda", "prometheus-operator", "gateway-api"))
OPERATORS = f"{OPERATOR}/_schemas/ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1"
PUBLISHED = {
    "keda.sh/v1alpha1/ScaledObject": (KEDA, f"{KEDA}/_schemas/ComGithubKedacoreKedaV2ApisKedaV1alpha1ScaledObject.js"),
    "monitoring.coreos.com/v1/PodMonitor": (OPERATOR, f"{OPERATORS}PodMonitor.js"),
    "monitoring.coreos.com/v1/PrometheusRule": (OPERATOR, f"{OPERATORS}PrometheusRule.js"),
    "gateway.networking.k8s.io/v1/HTTPRoute": (GATEWAY, f"{GATEWAY}/_schemas/IoK8sSigsGatewayApiApisV1HTTPRoute.js"),
}
"""Kind -> package and validator. Nobody publishes LeaderWorkerSet and InferencePool so."""


def published(kind):
    file = MODULES / PUBLISHED[kind][0] / f"{kind}.d.ts"
    assert file.is_file(), f"{file} is missing: run this by `make chart-crds`"
    _needed, spec = Type("interface", file, MODULES).fields()["spec"]
    return spec


def name_of(one):
    return f"{one['apiVersion']}/{one['kind']}"


@functools.cache
def rendered():
    found = [one for values, preset in chart.SAMPLES.values() for one in chart.render(values, preset)]
    return [one for one in found if name_of(one) in PUBLISHED]


def faults(manifests):
    asked = {"modules": str(MODULES), "manifests": [[PUBLISHED[name_of(one)][1], one] for one in manifests]}
    argv = ["node", str(chart.ROOT / "tests" / "crds" / "check.mjs")]
    done = subprocess.run(argv, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_resource_of_every_sample_is_taken_by_the_published_validator():
    assert {name_of(one) for one in rendered()} == set(PUBLISHED)
    assert faults(rendered()) == []


@pytest.mark.parametrize("kind", PUBLISHED)
def test_our_schema_has_the_published_fields_and_needs_what_they_need(kind):
    assert list(differences(CRDS[kind], published(kind))) == []


WRONG = {
    "keda.sh/v1alpha1/ScaledObject": [(("fallback", "behavior"), "never"), (("minReplicaCount",), "1"), (("triggers",), None)],
    "monitoring.coreos.com/v1/PodMonitor": [(("selector",), None), (("podTargetLabels",), "x")],
    "monitoring.coreos.com/v1/PrometheusRule": [(("groups", 0, "rules", 0, "expr"), None), (("groups", 0, "name"), None)],
    "gateway.networking.k8s.io/v1/HTTPRoute": [(("rules", 0, "timeouts", "request"), "1 hour"), (("parentRefs", 0, "name"), None)],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "value"), [(kind, *one) for kind, some in WRONG.items() for one in some])
def test_the_validator_finds_what_is_wrong(kind, path, value):
    one = copy.deepcopy(
        next(
            one for one in rendered() if name_of(one) == kind and ("fallback" not in path or "fallback" in one["spec"])
        )
    )
    node = one["spec"]
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    assert faults([one])


def test_the_comparison_finds_what_differs():
    kind = "keda.sh/v1alpha1/ScaledObject"
    ours = copy.deepcopy(CRDS[kind])
    inner = ours["properties"]
    inner["maxReplicas"] = {"type": "integer"}
    inner["fallback"]["properties"]["behavior"]["enum"].append("never")
    inner["pollingInterval"]["type"] = "string"
    inner["triggers"]["items"]["required"].remove("metadata")
    inner["advanced"]["required"] = ["horizontalPodAutoscalerConfig"]
    assert [told.partition(":")[0] for told in differences(ours, published(kind))] == [
        "spec.pollingInterval", "spec.fallback.behavior", "spec.advanced", "spec.triggers[]", "spec.maxReplicas does not exist",
    ]  # fmt: skip
