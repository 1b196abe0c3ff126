"""The gateway's pod: an environment that the gateway takes, its Service, and what is in front of it."""

from __future__ import annotations

import pytest

from gateway.settings import load
from tests.support import chart
from tests.support.chart import at, merged

GATEWAY = f"{chart.RELEASE}-qwen3-vl-gateway"


def container(manifests):
    return chart.pod_templates(manifests)[GATEWAY]["spec"]["containers"][0]


def settings(manifests):
    environ = chart.environment(container(manifests))
    return load({name: value for name, value in environ.items() if name.startswith("GATEWAY_")})


@pytest.mark.parametrize("sample", sorted(chart.SAMPLES))
def test_the_gateway_takes_the_environment_that_the_chart_gives_it(sample):
    values, preset = chart.SAMPLES[sample]
    manifests = chart.render(values, preset)
    taken = settings(manifests)
    pools = {
        one["metadata"]["labels"][chart.PER_POD]
        for one in chart.kind(manifests, "Service")
        if chart.PER_POD in one["metadata"]["labels"]
    }
    assert taken.engines == tuple(f"dns+http://shop-qwen3-vl-engine-{pool}.vision.svc:8000" for pool in sorted(pools))
    assert (taken.host, taken.port, taken.metrics_port) == ("0.0.0.0", 8080, 9090)
    assert taken.tenant_secret is not None
    assert taken.engine_api_key is not None
    assert taken.drain_delay_s == 0


def test_every_setting_reaches_the_gateway_as_it_was_written():
    given = {
        "workers": 2, "engine_connect_timeout_s": 0.5, "hold_without_engine": True, "image_allowed_hosts": ["*.example.com", "b.org"],
        "image_max_source_pixels": 50_000_000, "cache_policy": "always", "allowed_cidrs": ["10.0.0.0/8"], "model_revision": "2026-01",
    }  # fmt: skip
    taken = settings(chart.plain(at("gateway.settings", given)))
    for name, value in given.items():
        assert getattr(taken, name) == (tuple(value) if isinstance(value, list) else value), name


def test_the_images_own_revision_is_not_written_over():
    names = {one["name"] for one in container(chart.plain())["env"]}
    assert "GATEWAY_BUILD_REVISION" not in names
    dockerfile = (chart.ROOT / "gateway" / "Dockerfile").read_text()
    assert "ARG REVISION=" in dockerfile
    assert "ENV GATEWAY_BUILD_REVISION=${REVISION}" in dockerfile


def test_redis_is_addressed_with_its_password():
    taken = settings(chart.plain())
    assert taken.redis_url is not None
    assert taken.redis_url.get_secret_value() == "redis://:secret@shop-qwen3-vl-redis:6379/0"
    assert settings(chart.plain(at("redis.mode", "none"))).redis_url is None


def test_the_engines_key_is_the_gateways():
    manifests = chart.plain()
    refs = [
        variable["valueFrom"]["secretKeyRef"]
        for pod in chart.pod_templates(manifests).values()
        for one in chart.containers(pod)
        for variable in one.get("env", [])
        if variable["name"] in {"VLLM_API_KEY", "GATEWAY_ENGINE_API_KEY"}
    ]
    assert len(refs) == 2
    assert refs[0] == refs[1]


def test_a_gateway_that_holds_requests_is_ready_without_an_engine():
    def path(values):
        return container(chart.plain(values))["readinessProbe"]["httpGet"]["path"]

    assert path({}) == "/readyz"
    assert path(at("gateway.settings.hold_without_engine", True)) == "/healthz"


def test_no_service_has_the_metrics_port(manifests):
    for one in chart.kind(manifests, "Service"):
        assert {port["targetPort"] for port in one["spec"]["ports"]} <= {"http", "redis"}


def test_the_clients_address_survives_the_load_balancer():
    service = chart.only(chart.render(preset="volcengine-vke"), "Service", "-gateway")["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert "externalTrafficPolicy" not in chart.only(chart.plain(), "Service", "-gateway")["spec"]


def test_trusted_proxies_reach_the_gateway():
    taken = settings(chart.render(preset="production"))
    assert taken.trusted_proxies == ("10.8.0.0/14",)
    assert taken.allowed_cidrs == ("203.0.113.0/24", "198.51.100.0/24")


def test_an_ingress_lets_streams_and_large_bodies_pass():
    manifests = chart.render(preset="production")
    ingress = chart.only(manifests, "Ingress", "-gateway")
    prefix = "nginx.ingress.kubernetes.io/"
    assert ingress["metadata"]["annotations"] == {
        f"{prefix}proxy-buffering": "off",
        f"{prefix}proxy-request-buffering": "off",
        f"{prefix}proxy-read-timeout": "900",
        f"{prefix}proxy-send-timeout": "900",
        f"{prefix}proxy-body-size": str(settings(manifests).max_body_bytes),
        f"{prefix}proxy-next-upstream": "error",
    }
    assert ingress["spec"]["tls"] == [{"secretName": "vision-example-com-tls", "hosts": ["vision.example.com"]}]


def test_annotations_of_ones_own_win():
    values = at(
        "exposure", {"trustedProxies": ["10.0.0.0/8"], "ingress": {"enabled": True, "hosts": ["a.b"], "tlsSecret": "t"}}
    )
    mine = {"nginx.ingress.kubernetes.io/proxy-buffering": "on", "cert-manager.io/cluster-issuer": "le"}
    found = chart.only(chart.plain(values, at("exposure.ingress.annotations", mine)), "Ingress", "-gateway")
    assert mine.items() <= found["metadata"]["annotations"].items()
    other = at("exposure.ingress.controller", "other")
    assert "annotations" not in chart.only(chart.plain(values, other), "Ingress", "-gateway")["metadata"]


def test_a_route_lives_as_long_as_a_stream():
    manifests = chart.render(chart.EVERYTHING)
    route = chart.only(manifests, "HTTPRoute", "-gateway")
    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "900s", "backendRequest": "900s"}
    assert rule["backendRefs"][0] == {"group": "", "kind": "Service", "name": GATEWAY, "port": 80, "weight": 1}


def test_the_inference_pool_is_of_the_engines_and_has_a_route_of_its_own():
    manifests = chart.render(chart.EVERYTHING)
    pool = chart.only(manifests, "InferencePool", "-engine")
    (rule,) = chart.only(manifests, "HTTPRoute", "-engine")["spec"]["rules"]
    assert rule["backendRefs"][0]["name"] == pool["metadata"]["name"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}]


def test_replicas_keep_apart_and_one_goes_at_a_time():
    manifests = chart.plain()
    spec = chart.pod_templates(manifests)[GATEWAY]["spec"]
    assert [one["topologyKey"] for one in spec["topologySpreadConstraints"]] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    assert spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["weight"] == 100
    assert chart.only(manifests, "PodDisruptionBudget", "-gateway")["spec"]["maxUnavailable"] == 1
    rollout = chart.only(manifests, "Deployment", "-gateway")["spec"]["strategy"]["rollingUpdate"]
    assert rollout == {"maxSurge": 1, "maxUnavailable": 0}


def test_further_variables_and_settings_cannot_meet():
    names = [
        one["name"]
        for one in container(chart.plain(merged(at("gateway.env", {"HTTPS_PROXY": "http://p:3128"}))))["env"]
    ]
    assert len(names) == len(set(names))
    assert "HTTPS_PROXY" in names


def test_a_rollout_may_take_as_long_as_what_it_waits_for():
    """Ready is who has an engine: a first one fetches its weights for longer than the ten minutes of a Deployment."""
    waits, holds = (
        chart.only(chart.plain(at("gateway.settings.hold_without_engine", held)), "Deployment", "-gateway")["spec"]
        for held in (False, True)
    )
    engine = chart.only(chart.plain(), "Deployment", "-engine-l4")["spec"]
    assert waits["progressDeadlineSeconds"] == engine["progressDeadlineSeconds"] == 3600
    assert "progressDeadlineSeconds" not in holds
