"""The engine's pod: the very command line of `serving run`, places to write, probes, GPUs, weights, the drain."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from serving import profile
from serving.__main__ import main
from serving.run_cli import ROOT
from tests.support import chart

PYTHON = "/image/python3"


def engine(values, pool="l4"):
    return chart.pod_templates(chart.plain(values))[f"{chart.RELEASE}-qwen3-vl-engine-{pool}"]


def serve(pod):
    return next(one for one in pod["spec"]["containers"] if one["name"] == "engine")


def printed(words, capsys, environ=None):
    """What `python -m serving` prints for these words, as argv and environment."""
    at = words.index("--") if "--" in words else len(words)
    environ = {"SERVING_ENGINE_PYTHON": PYTHON, "PATH": "/usr/bin:/bin", **(environ or {})}
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        assert main([*words[:at], "--print", *words[at:]]) == 0
    return shell(capsys.readouterr().out)


def shell(text):
    line = shlex.split(text.replace("\\\n", " "))
    start = line.index(PYTHON)
    return line[start:], dict(one.split("=", 1) for one in line[:start])


def pool_of(name):
    """The least that makes a pool of this profile."""
    if name == "cpu":
        return {"profile": name, "weights": {"fetch": False}}
    return {"profile": name} | ({"weights": {"source": "s3://models/w4a16"}} if not profile.load(name).model else {})


def pod_of(name):
    values = {"pools": {"l4": None, "one": pool_of(name)}}
    return engine(values, "one")


def model_of(name):
    if name == "cpu":
        return []
    source = profile.load(name).model or "w4a16"
    return ["--model", f"/models/{source.rpartition('/')[2].lower()}/current"]


@pytest.mark.parametrize("name", profile.names())
def test_the_pod_runs_what_serving_run_prints_for_the_profile(name, capsys):
    container = serve(pod_of(name))
    assert container["command"] == ["python3", "-m", "serving"]
    environ = {key: value for key, value in chart.environment(container).items() if key != "VLLM_API_KEY"}
    in_pod = printed(container["args"], capsys, environ)
    drain = ["--", "--shutdown-timeout", "120"]
    by_hand = printed(
        ["run", "--profile", name, *model_of(name), "--host", "0.0.0.0", "--port", "8000", *drain], capsys
    )
    assert in_pod == by_hand
    # Nothing but the address, the checkpoint and the drain differs from what the profile alone gives.
    plain, _ = printed(["run", "--profile", name, "--model", "M"], capsys)
    told = {"--model", "--host", "--port", "--shutdown-timeout"}
    assert flags(in_pod[0], told) == flags(plain, told)


def test_the_pods_own_words_start_it():
    """As the pod does it: a process, with what stands in the manifest."""
    container = serve(pod_of("l4"))
    args = container["args"]
    at = args.index("--")
    done = subprocess.run(
        [sys.executable, *container["command"][1:], *args[:at], "--print", *args[at:]],
        capture_output=True, text=True, check=True, cwd=ROOT, env={"SERVING_ENGINE_PYTHON": PYTHON, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    argv, _ = shell(done.stdout)
    assert argv[argv.index("--shutdown-timeout") + 1] == "120"


def flags(argv, without):
    groups, current = [], []
    for word in [*argv[3:], "--"]:
        if word.startswith("--"):
            groups.append(tuple(current))
            current = []
        current.append(word)
    return [group for group in groups if group and group[0] not in without]


def test_extra_arguments_come_last_and_win():
    args = serve(engine(chart.at("pools.l4.extraArgs", ["--max-num-seqs", "16"])))["args"]
    assert args[-2:] == ["--max-num-seqs", "16"]
    assert args.index("--") < args.index("--max-num-seqs")


@pytest.mark.parametrize("sample", sorted(chart.SAMPLES))
def test_the_drain_is_one_value(sample):
    values, preset = chart.SAMPLES[sample]
    for name, pod in chart.pod_templates(chart.render(values, preset)).items():
        for one in pod["spec"]["containers"]:
            if "lifecycle" not in one:
                continue
            pause = int(one["lifecycle"]["preStop"]["exec"]["command"][1])
            if "--shutdown-timeout" in one.get("args", []):
                drain = int(one["args"][one["args"].index("--shutdown-timeout") + 1])
            else:
                drain = int(chart.environment(one)["GATEWAY_DRAIN_TIMEOUT_S"])
            margin = pod["spec"]["terminationGracePeriodSeconds"] - pause - drain
            assert margin == (10 if preset == "minimal" else 30), name


def test_a_pool_on_spot_nodes_drains_faster():
    pod = engine(chart.at("pools.l4.drainSeconds", 20))
    assert serve(pod)["args"][-2:] == ["--shutdown-timeout", "20"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 15 + 20 + 30


def test_whatever_the_image_writes_to_is_a_volume():
    written = set(
        re.search(r"VOLUME \[(.*)\]", (ROOT / "serving" / "Dockerfile").read_text())
        .group(1)
        .replace('"', "")
        .split(", ")
    )
    mounts = {one["mountPath"]: one for one in serve(engine({}))["volumeMounts"]}
    assert written | {"/dev/shm"} <= set(mounts)
    assert {path for path, one in mounts.items() if one.get("readOnly")} == {"/models"}


@pytest.mark.parametrize(
    ("name", "gpus", "shm"),
    [("l4", "1", "2Gi"), ("h100-x2", "2", "4Gi"), ("a100-80-x4", "4", "8Gi"), ("cpu", None, "2Gi")],
)
def test_gpus_and_shared_memory_follow_the_profile(name, gpus, shm):
    pod = pod_of(name)
    assert serve(pod)["resources"]["limits"].get("nvidia.com/gpu") == gpus
    volume = next(one for one in pod["spec"]["volumes"] if one["name"] == "shm")
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": shm}


def test_probes_are_those_of_the_documents():
    container = serve(engine({}))
    startup, readiness, liveness = (container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness"))
    assert startup["exec"]["command"] == ["python3", "-m", "serving", "ready"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == int(
        profile.load("l4").env["VLLM_ENGINE_READY_TIMEOUT_S"]
    )
    assert (readiness["httpGet"]["path"], liveness["httpGet"]["path"]) == ("/health", "/health")
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 60


def test_weights_on_a_nodes_disk_are_a_claim_to_the_pod():
    manifests = chart.render(preset="a100")
    volume = chart.only(manifests, "PersistentVolume", "-weights")
    claim = chart.only(manifests, "PersistentVolumeClaim", "-weights")
    assert volume["spec"]["hostPath"] == {"path": "/mnt/ssd/qwen3-vl", "type": "Directory"}
    assert "nodeAffinity" not in volume["spec"]
    assert volume["spec"]["claimRef"]["name"] == claim["metadata"]["name"]
    assert volume["spec"]["claimRef"]["namespace"] == chart.NAMESPACE
    assert (claim["spec"]["volumeName"], claim["spec"]["storageClassName"]) == (volume["metadata"]["name"], "")
    pod = chart.pod_templates(manifests)[f"{chart.RELEASE}-qwen3-vl-engine-a100"]
    mounted = next(one for one in pod["spec"]["volumes"] if one["name"] == "weights")
    assert mounted["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_a_claim_of_ones_own_is_used_and_none_is_made():
    volume = {"kind": "existingClaim", "existingClaim": "shared", "accessMode": "ReadOnlyMany"}
    weights = {"fetch": False, "model": "/models/qwen3-vl-8b/current", "volume": volume}
    manifests = chart.plain(chart.at("pools.l4", {"weights": weights, "replicas": 1}))
    pod = chart.pod_templates(manifests)[f"{chart.RELEASE}-qwen3-vl-engine-l4"]
    assert "initContainers" not in pod["spec"]
    assert next(one for one in pod["spec"]["volumes"] if one["name"] == "weights")["persistentVolumeClaim"] == {
        "claimName": "shared"
    }
    assert [one["metadata"]["name"] for one in chart.kind(manifests, "PersistentVolumeClaim")] == [
        f"{chart.RELEASE}-qwen3-vl-engine-l4-cache"
    ]


def test_what_is_fetched_is_what_is_served():
    for address, folder in {
        "hf://Qwen/Qwen3-VL-8B-Instruct@0123456789012345678901234567890123456789": "/models/qwen3-vl-8b-instruct",
        "s3://bucket/some/Prefix/": "/models/prefix",
        "modelscope://Qwen/Qwen3-VL-8B-Instruct-FP8": "/models/qwen3-vl-8b-instruct-fp8",
    }.items():
        fetch, run = chart.containers(engine(chart.at("pools.l4.weights.source", address)))
        assert fetch["args"][:5] == ["fetch", "--from", address, "--to", folder]
        assert run["args"][run["args"].index("--model") + 1] == f"{folder}/current"


def test_the_fetchs_words_are_known_to_it():
    fetch, _ = chart.containers(engine({}))
    done = subprocess.run(
        [sys.executable, "-m", "serving", *fetch["args"][:3], "--to", "/nonexistent/x", *fetch["args"][5:], "--wait", "0", "--manifest", "/nonexistent"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert "manifest" in done.stderr


def test_pools_stand_side_by_side():
    values = {
        "pools": {
            "spot": {
                "profile": "a10",
                "nodeSelector": {"spot": "true"},
                "runtimeClassName": "nvidia",
                "priorityClassName": "low",
            }
        }
    }
    manifests = chart.plain(values)
    spot, base = (
        chart.pod_templates(manifests)[f"{chart.RELEASE}-qwen3-vl-engine-{name}"]["spec"] for name in ("spot", "l4")
    )
    assert (spot["nodeSelector"], spot["runtimeClassName"], spot["priorityClassName"]) == (
        {"spot": "true"},
        "nvidia",
        "low",
    )
    assert not {"nodeSelector", "runtimeClassName", "priorityClassName"} & set(base)
    assert (
        spot["tolerations"]
        == base["tolerations"]
        == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    )


def test_engines_over_several_nodes_split_layers_between_them(capsys):
    manifests = chart.render(chart.MULTI_NODE)
    group = chart.only(manifests, "LeaderWorkerSet", "-h100-lws")["spec"]["leaderWorkerTemplate"]
    leader, worker = (serve(group[role])["args"] for role in ("leaderTemplate", "workerTemplate"))
    assert group["size"] == 2
    # Its controller makes a Service of its name, where workers find a leader that is not ready yet.
    names = {one["metadata"]["name"] for one in chart.kind(manifests, "Service")}
    assert not names & {one["metadata"]["name"] for one in chart.kind(manifests, "LeaderWorkerSet")}
    shared = ["--pipeline-parallel-size", "2", "--nnodes", "2", "--master-addr", "$(LWS_LEADER_ADDRESS)"]
    assert leader[-8:] == [*shared, "--node-rank", "0"]
    assert worker[-9:] == [*shared, "--node-rank", "$(LWS_WORKER_INDEX)", "--headless"]
    argv, _ = printed(worker, capsys)
    assert argv[1:4] == ["-m", "vllm.entrypoints.cli.main", "serve"]
    assert argv.count("--tensor-parallel-size") == 1
    # Only the leader answers.
    assert "readinessProbe" not in serve(group["workerTemplate"])
    service = chart.only(manifests, "Service", "-engine-h100")
    assert service["spec"]["selector"]["leaderworkerset.sigs.k8s.io/worker-index"] == "0"
