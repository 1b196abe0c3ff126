"""Values that do not go together: each rule of validate.yaml, by its exact message."""

from __future__ import annotations

import re

import pytest

from tests.support import chart
from tests.support.chart import at, merged

MESSAGE = re.compile(r"These values do not go together:\n\n(.*?)\n\n", re.DOTALL)
PROFILES = (
    "a10, a100-40, a100-40-x2, a100-40-x4, a100-80, a100-80-x2, a100-80-x4, cpu, h100, h100-x2, h100-x4, l4, l40s, t4"
)
PROXIED = at("exposure.trustedProxies", ["10.8.0.0/14"])
INGRESS = merged(PROXIED, at("exposure.ingress", {"enabled": True, "hosts": ["a.example.com"], "tlsSecret": "tls"}))
KEDA = merged(
    at("monitoring.prometheusUrl", "http://prometheus:9090"),
    at("pools.l4.autoscaling", {"kind": "keda", "minReplicas": 0, "maxReplicas": 1}),
)
HOLDS = at("gateway.settings", {"hold_without_engine": True, "queue_default_s": 300})
FP8 = ["--kv-cache-dtype", "fp8"]


def pool(profile, **more):
    return {"pools": {"l4": None, "p": {"profile": profile, **more}}}


CASES = [
    # The images.
    (
        at("gateway.image.digest", ""),
        "gateway.image.digest is empty: set it to the image's sha256:…, which `docker buildx imagetools inspect ghcr.io/qwen3-vl-stack/gateway:0.1.0` shows (or allowTags=true for images loaded by hand)",
    ),
    (
        at("pools.l4.image.digest", ""),
        "pools.l4.image.digest is empty: set it to the image's sha256:…, which `docker buildx imagetools inspect ghcr.io/qwen3-vl-stack/engine:0.1.0` shows (or allowTags=true for images loaded by hand)",
    ),
    # About: drain.
    (
        at("gateway.terminationGracePeriodSeconds", 60),
        "gateway.terminationGracePeriodSeconds is 60, shorter than the drain needs (165): leave it out, or lower drain.seconds",
    ),
    (
        at("pools.l4", {"terminationGracePeriodSeconds": 30, "drainSeconds": 10}),
        "pools.l4.terminationGracePeriodSeconds is 30, shorter than the drain needs (55): leave it out, or lower pools.l4.drainSeconds",
    ),
    # About: GPU and profile.
    (
        {"pools": None},
        f"pools is empty: name at least one, for example --set pools.l4.profile=l4 (profiles: {PROFILES})",
    ),
    (
        at("pools.l4.gpu.products", ["Tesla-T4"]),
        "pools.l4: profile l4 computes in bfloat16, which Tesla-T4 does not have: take profile t4 with a 4-bit checkpoint, or another GPU",
    ),
    (
        pool("t4", weights={"source": "s3://b/w4a16"}, extraArgs=["--dtype=bfloat16"]),
        "pools.p.extraArgs: NVIDIA T4, 16 GB has no bfloat16: leave --dtype to the profile",
    ),
    (
        pool("t4", weights={"source": "s3://b/w4a16"}, extraArgs=FP8),
        "pools.p.extraArgs: NVIDIA T4, 16 GB has no FP8 KV cache: leave --kv-cache-dtype out",
    ),
    (
        pool("a10", extraArgs=["--kv_cache_dtype=fp8_e4m3"]),
        "pools.p.extraArgs: an FP8 KV cache on NVIDIA A10, 24 GB needs FlashInfer: add --attention-backend FLASHINFER, or leave --kv-cache-dtype out",
    ),
    (at("pools.l4.extraArgs", ["--model", "x"]), "pools.l4.extraArgs: --model is the chart's: use weights"),
    (at("pools.l4.extraArgs", ["--port=9000"]), "pools.l4.extraArgs: --port is the chart's: it is fixed"),
    (
        at("pools.l4.extraArgs", ["--shutdown-timeout", "5"]),
        "pools.l4.extraArgs: --shutdown-timeout is the chart's: use drain.seconds",
    ),
    (
        at("pools.l4.extraArgs", ["--tensor-parallel-size", "2"]),
        "pools.l4.extraArgs: --tensor-parallel-size is the chart's: use a profile for several GPUs",
    ),
    (
        at("pools.l4.extraArgs", ["--api-key", "sk-x"]),
        "pools.l4.extraArgs: a key on a command line is for everybody to read: it comes from secrets.existingSecret, entry engine-api-key",
    ),
    (
        at("pools.l4.env", {"VLLM_SERVER_DEV_MODE": "1"}),
        "pools.l4.env: VLLM_SERVER_DEV_MODE opens the engine to whoever reaches it: leave it out",
    ),
    (
        at("pools.l4.env", {"VLLM_API_KEY": "x"}),
        "pools.l4.env: VLLM_API_KEY is a secret: it comes from secrets.existingSecret, entry engine-api-key",
    ),
    # About: weights and cache.
    (pool("t4"), "pools.p.weights.source is empty, and profile t4 names no checkpoint: give the address of one"),
    (
        pool("cpu"),
        "pools.p.weights: profile cpu has its checkpoint in the image: set weights.fetch=false, or give weights.source",
    ),
    (
        at("pools.l4.weights.fetch", False),
        "pools.l4.weights.model is empty, and the image has no checkpoint for profile l4: give the path of one, or set weights.fetch=true",
    ),
    (
        at("pools.l4.weights", {"fetch": False, "model": "/image/x", "source": "s3://b/x"}),
        "pools.l4.weights.source is set, but weights.fetch is false: nothing would fetch it",
    ),
    (
        at("pools.l4.weights.model", "/models/x"),
        "pools.l4.weights.model is set, but weights.fetch is true: the engine serves what was fetched; leave one of them out",
    ),
    (
        at("pools.l4.weights.volume.kind", "existingClaim"),
        "pools.l4.weights.volume.existingClaim is empty: name the claim",
    ),
    (
        at("pools.l4.compileCache.volume.kind", "hostPath"),
        "pools.l4.compileCache.volume.hostPath is empty: name a folder that exists on each node and that group 2000 may write to",
    ),
    (
        at("pools.l4", {"replicas": 2, "compileCache": {"volume": {"kind": "emptyDir"}}}),
        "pools.l4.weights.volume: a ReadWriteOnce claim holds one engine, and this pool may have more: take accessMode ReadWriteMany, kind hostPath, or one pool for each engine",
    ),
    (
        at("pools.l4", {"rollout": {"maxSurge": 1}, "weights": {"volume": {"kind": "emptyDir"}}}),
        "pools.l4.compileCache.volume: with a ReadWriteOnce claim the next engine cannot start beside the old one: set pools.l4.rollout to maxSurge 0 and maxUnavailable 1",
    ),
    (
        at("pools.l4.weights.volume.accessMode", "ReadOnlyMany"),
        "pools.l4.weights: nothing can be fetched into a ReadOnlyMany claim: set weights.fetch=false and weights.model",
    ),
    # About: rollout and scaling.
    (
        at("pools.l4.rollout.maxUnavailable", 0),
        "pools.l4.rollout: maxSurge and maxUnavailable are both 0, so no rollout could begin",
    ),
    (
        pool(
            "cpu",
            weights={"fetch": False},
            leaderWorker={"enabled": True},
            compileCache={"volume": {"kind": "emptyDir"}},
        ),
        "pools.p.leaderWorker: profile cpu uses no GPU, so there is nothing to spread over nodes",
    ),
    (
        at("pools.l4.replicas", 0),
        "pools.l4.replicas is 0 and there is no other pool, so every request would be refused: set gateway.settings.hold_without_engine=true to let them wait, or run one engine",
    ),
    (
        at("pools.l4.autoscaling", {"kind": "hpa", "minReplicas": 2, "maxReplicas": 1}),
        "pools.l4.autoscaling: minReplicas (2) is more than maxReplicas (1)",
    ),
    (
        merged(HOLDS, at("pools.l4.autoscaling", {"kind": "hpa", "minReplicas": 0, "maxReplicas": 1})),
        "pools.l4.autoscaling: an HPA cannot scale to zero: use kind keda, or minReplicas 1",
    ),
    (
        KEDA,
        "pools.l4.autoscaling.minReplicas is 0, and nobody would hold requests until an engine is up: set gateway.settings.hold_without_engine=true",
    ),
    (
        merged(KEDA, at("gateway.settings.hold_without_engine", True)),
        "pools.l4.autoscaling.minReplicas is 0, and requests may wait 60 s while it takes 240 until they are noticed and an engine is up: raise gateway.settings.queue_default_s",
    ),
    (
        merged(at("pools.more", {"profile": "a10"}), at("pools.l4.autoscaling", {"kind": "hpa", "maxReplicas": 1})),
        "pools.l4.autoscaling.kind is hpa, and there are other pools: qwen3_vl_engine_demand holds the demand of all, so this one would be scaled for all of it; give it an externalMetric of its own, or use keda",
    ),
    (
        merged(chart.MULTI_NODE, at("fullnameOverride", "f" * 32), {"pools": {"l4": None, "h100": None, "p" * 10: chart.MULTI_NODE["pools"]["h100"]}}),
        f"pools.{'p' * 10}.leaderWorker: {'f' * 32}-engine-{'p' * 10}-lws has 54 characters, and a LeaderWorkerSet's pods can be named with 49 at most: shorten the pool's name, or set fullnameOverride",
    ),
    (
        merged(chart.MULTI_NODE, {"pools": {"l4": None}}, at("exposure.inferencePool", {"enabled": True, "endpointPicker": {"name": "picker"}, "from": [{"namespaceSelector": {}}]})),
        "pools.h100.leaderWorker: an InferencePool takes every pod of the engines, so workers too, which answer nothing: leave exposure.inferencePool off",
    ),
    (
        at("gateway.settings.otlp_endpoint", "http://collector:4318"),
        "gateway.settings.otlp_endpoint: the NetworkPolicy would keep the gateway from the collector of traces: name it in networkPolicy.gatewayEgress",
    ),
    (
        at("gateway.env.OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        "gateway.env.OTEL_EXPORTER_OTLP_ENDPOINT: the NetworkPolicy would keep the gateway from the collector of traces: name it in networkPolicy.gatewayEgress",
    ),
    (
        at("pools.l4.weights", {"source": "s3://b/x", "env": {"AWS_ENDPOINT_URL_S3": "https://minio.internal:9000"}}),
        "pools.l4.weights.env: AWS_ENDPOINT_URL_S3 is at port 9000, which the NetworkPolicy shuts: add it to networkPolicy.weightPorts",
    ),
    (
        at("pools.l4.weights.env", {"HF_ENDPOINT": "http://mirror.internal"}),
        "pools.l4.weights.env: HF_ENDPOINT is at port 80, which the NetworkPolicy shuts: add it to networkPolicy.weightPorts",
    ),
    (
        merged(HOLDS, KEDA, at("monitoring.prometheusUrl", "")),
        "pools.l4.autoscaling.kind is keda, which asks Prometheus: set monitoring.prometheusUrl",
    ),
    # About: gateway.
    (
        at("gateway.autoscaling", {"kind": "hpa", "minReplicas": 7}),
        "gateway.autoscaling: minReplicas (7) is more than maxReplicas (6)",
    ),
    (
        at("gateway.autoscaling.kind", "keda"),
        "gateway.autoscaling.kind is keda, which asks Prometheus: set monitoring.prometheusUrl",
    ),
    (
        at("gateway.env", {"GATEWAY_WORKERS": "2"}),
        "gateway.env: GATEWAY_WORKERS is a setting: use gateway.settings.workers",
    ),
    (
        at("gateway.env", {"REDIS_PASSWORD": "x"}),
        "gateway.env: REDIS_PASSWORD is a secret: it comes from secrets.existingSecret, entry redis-password",
    ),
    (
        merged(at("redis.mode", "none"), at("gateway.settings.tokens_per_minute", 1000)),
        "gateway.settings.tokens_per_minute: without Redis each gateway counts for itself, so a client gets it several times: set redis.mode to bundled or external",
    ),
    (
        at("redis", {"mode": "external", "cidrs": ["10.0.0.0/8"]}),
        "redis.mode is external: name the Secret with its URL in redis.urlSecret.name",
    ),
    (
        at("redis", {"mode": "external", "urlSecret": {"name": "redis"}}),
        "redis.cidrs is empty, so the NetworkPolicy would keep the gateway from Redis: give its networks",
    ),
    # About: exposure.
    (
        at("exposure.trustedProxies", ["0.0.0.0/0"]),
        "exposure.trustedProxies: 0.0.0.0/0 trusts everybody, so any client could claim any address: give the proxies' own networks",
    ),
    (
        merged(INGRESS, at("exposure.trustedProxies", [])),
        "exposure.ingress is on and exposure.trustedProxies is empty: every client would have the proxy's address; give the network of its pods",
    ),
    (
        merged(
            at("gateway.settings.allowed_cidrs", ["203.0.113.0/24"]),
            at("exposure.service", {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}),
        ),
        "exposure.service.externalTrafficPolicy is Cluster, which replaces clients' addresses by nodes', and gateway.settings.allowed_cidrs is to judge by them: set it to Local",
    ),
    (merged(INGRESS, at("exposure.ingress.hosts", [])), "exposure.ingress.hosts is empty: give the names that clients use"),
    (
        merged(INGRESS, at("exposure.ingress.tlsSecret", "")),
        "exposure.ingress.tlsSecret is empty, so keys would cross the network in clear text: name the Secret with the certificate (or set plainHttp=true, behind something that ends TLS)",
    ),
    (
        merged(PROXIED, at("exposure.httpRoute.enabled", True)),
        "exposure.httpRoute.parentRefs is empty: name the Gateway that it belongs to",
    ),
    (
        merged(INGRESS, at("exposure.timeoutSeconds", 60)),
        "exposure.timeoutSeconds is 60, less than a request may wait for a slot and its answer (660): a proxy would cut it off",
    ),
    (
        at("exposure.inferencePool", {"enabled": True, "from": [{"namespaceSelector": {}}]}),
        "exposure.inferencePool.endpointPicker.name is empty: name the Service of the endpoint picker",
    ),
    (
        at("exposure.inferencePool", {"enabled": True, "endpointPicker": {"name": "picker"}}),
        "exposure.inferencePool.from is empty, so the NetworkPolicy would keep the Gateway from the engines: give its peers",
    ),
]  # fmt: skip

FITS = [
    merged(at("gateway.image.digest", ""), at("allowTags", True)),
    pool("a10", extraArgs=[*FP8, "--attention-backend", "FLASHINFER"]),
    pool("l40s", extraArgs=FP8),
    at("pools.l4", {"terminationGracePeriodSeconds": 200}),
    at("pools.l4.gpu.products", ["NVIDIA-L4"]),
    at("pools.l4", {"replicas": 3, "weights": {"volume": {"accessMode": "ReadWriteMany"}}, "compileCache": {"volume": {"kind": "hostPath", "hostPath": "/x"}}}),
    merged(HOLDS, KEDA),
    merged(HOLDS, at("pools.l4.replicas", 0)),
    at("pools.l4.weights.env", {"HF_ENDPOINT": "https://mirror.internal", "AWS_REGION": "eu-central-1"}),
    merged(at("pools.l4.weights.env", {"HF_ENDPOINT": "http://mirror.internal"}), at("networkPolicy.enabled", False)),
    merged(at("pools.more", {"profile": "a10"}), at("pools.l4.autoscaling", {"kind": "hpa", "maxReplicas": 1, "externalMetric": "own"})),
    INGRESS,
    merged(INGRESS, at("exposure.ingress", {"tlsSecret": "", "plainHttp": True})),
    merged(
        at("gateway.settings.allowed_cidrs", ["203.0.113.0/24"]),
        at("exposure.service", {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}),
    ),
]  # fmt: skip


def complaints(values):
    with pytest.raises(chart.Refused) as refused:
        chart.plain(values)
    told = MESSAGE.search(str(refused.value))
    assert told, str(refused.value)
    return told.group(1).removeprefix("- ").split("\n- ")


@pytest.mark.parametrize(("values", "message"), CASES, ids=[message[:60] for _, message in CASES])
def test_values_that_do_not_go_together_are_refused_with_the_next_step(values, message):
    assert complaints(values) == [message]


@pytest.mark.parametrize("values", FITS)
def test_what_looks_like_a_fault_and_is_none_passes(values):
    assert chart.plain(values)


def test_every_message_has_a_case():
    source = (chart.CHART / "templates" / "validate.yaml").read_text()
    formats = re.findall(r'append \$faults \(?(?:printf )?"([^"]+)"', source)
    assert len(formats) == source.count("append $faults")
    told = [message for _, message in CASES]
    for text in formats:
        pattern = re.compile("(.+)".join(re.escape(part) for part in re.split(r"%[sd]", text)))
        assert any(pattern.fullmatch(message) for message in told), text


def test_all_faults_are_told_at_once():
    found = complaints(merged(at("gateway.image.digest", ""), pool("t4"), at("exposure.trustedProxies", ["::/0"])))
    assert len(found) == 3


def test_only_one_file_refuses():
    for path in (chart.CHART / "templates").rglob("*"):
        if path.is_file() and path.name != "validate.yaml":
            assert "fail " not in re.sub(r"\{\{-? ?/\*.*?\*/", "", path.read_text(), flags=re.DOTALL).replace(
                "failure", ""
            ), path
