"""The runner of `make cluster-test`, before a scripted cluster: which commands it gives, and that it notices what it must.

The manifests are helm's own; what an API server does with them is scripted, and each fault is one that a real one could show.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.cluster import __main__ as runner
from tests.cluster.cluster import Cluster
from tests.support import chart

VALUES = [chart.PRESETS["minimal"], chart.ROOT / "tests" / "cluster" / "values.yaml"]
PODS = {"wait", "exec", "logs", "drain", "uncordon", "test"}
HOOK = "helm.sh/hook"
NODES = [{"metadata": {"name": name}, "spec": {}} for name in ("one", "two")]
NOISE = "memcache.go: couldn't get resource list for metrics.k8s.io/v1beta1\n"
"""What kubectl says on many clusters, whatever it is asked."""


def a_pod(component, node, **metadata):
    labels = {chart.COMPONENT: component}
    return {"metadata": {"name": f"{component}-{node}", "labels": labels, **metadata}, "spec": {"nodeName": node}}


LEAVING = a_pod("gateway", "two", deletionTimestamp="2026-11-30T08:00:00Z")
PODS_BEFORE = [LEAVING, a_pod("gateway", "two"), a_pod("gateway", "one"), a_pod("engine", "two")]


class ScriptedCluster:
    """Keeps what helm sends. `fault` is what it does wrong."""

    def __init__(self, fault=None, nodes=2):
        self.fault, self.nodes = fault, NODES[:nodes]
        self.objects, self.revisions, self.hooks, self.commands, self.serial = {}, [], [], [], 0
        self.pods, self.given = PODS_BEFORE, []

    def run(self, argv, stdin=None):
        tool = argv[0].rpartition("/")[2]
        words = [word for word in argv[1:] if word not in {"--namespace", "vision"}]
        self.commands.append((tool, *words))
        self.given.append((tool, tuple(argv[1:]), stdin))
        answer = getattr(self, f"{tool}_{words[0].replace('-', '_')}", None)
        code, output, *complaint = answer(words, stdin) if answer else (0, "")
        return code, output, "".join(complaint) or (NOISE if tool == "kubectl" else "")

    def _apply(self, manifests):
        made = {}
        for one in manifests:
            name = f"{one['kind']}/{one['metadata']['name']}"
            old = self.objects.get(name)
            self.serial += 1
            if one["kind"] == "Deployment":
                # Helm's `lookup` is not asked here: what it would send again.
                kept = 1 if self.fault == "forgets replicas" or old is None else old["spec"]["replicas"]
                one["spec"].setdefault("replicas", kept)
            fresh = old is None or (self.fault == "made anew" and one["kind"] == "Service" and len(self.revisions) > 1)
            one["metadata"]["uid"] = str(self.serial) if fresh else old["metadata"]["uid"]
            same = old is not None and old.get("spec") == one.get("spec") and self.fault != "restless"
            one["metadata"]["generation"] = self.serial if not same else old["metadata"]["generation"]
            one["status"] = {"readyReplicas": one.get("spec", {}).get("replicas", 0)}
            made[name] = one
        if self.fault == "forgetful":
            made.pop("Service/shop-qwen3-vl-gateway")
        self.objects = made | {name: one for name, one in self.objects.items() if one["kind"] == "Secret"}

    def _generate(self):
        """Hooks before an installation or an upgrade: with a cluster, they are rendered for what is missing."""
        for one in self.hooks:
            name = f"{one['kind']}/{one['metadata']['name']}"
            if one["kind"] == "Secret" and (name not in self.objects or self.fault == "new secrets"):
                one["metadata"]["uid"] = self.objects.get(name, one)["metadata"].get("uid", name)
                self.objects[name] = one

    def helm_upgrade(self, words, stdin):
        files = [word for word in words if word.endswith(".yaml")]
        layers = [yaml.safe_load(Path(path).read_text()) for path in files]
        values = chart.merged(*layers, json.loads(stdin))
        try:
            text = chart.render_text(values)
        except chart.Refused as exc:
            return (0, "") if self.fault == "takes anything" else (1, str(exc))
        everything = chart.parse(text)
        self.hooks = [one for one in everything if HOOK in one["metadata"].get("annotations", {})]
        manifests = [one for one in everything if one not in self.hooks]
        self.revisions.append(yaml.safe_dump_all(manifests))
        self._generate()
        self._apply(manifests)
        return 0, ""

    helm_install = helm_upgrade

    def helm_template(self, words, _):
        return 0, chart.render_text(preset=Path(words[-1]).stem)

    def helm_test(self, *_):
        return 0, "TEST SUITE: vision\nWhat colour is the shirt? 'red' (right)\n"

    def helm_get(self, words, _):
        if words[1] == "hooks":
            return 0, yaml.safe_dump_all(self.hooks)
        return 0, self.revisions[int(words[words.index("--revision") + 1]) - 1 if "--revision" in words else -1]

    def helm_rollback(self, words, _):
        text = self.revisions[-1 if self.fault == "stuck" else int(words[2]) - 1]
        self._apply(chart.parse(text))
        self.revisions.append(text)
        return 0, ""

    def helm_uninstall(self, *_):
        kept = {"clinging": ("Secret/", "Service/"), "thorough": ()}.get(self.fault, ("Secret/",))
        self.objects = {name: one for name, one in self.objects.items() if name.startswith(kept)}
        return 0, ""

    def kubectl_version(self, *_):
        if self.fault == "away":
            return 1, "The connection to the server was refused"
        minor = "28" if self.fault == "old" else "33+"
        return 0, json.dumps({"serverVersion": {"major": "1", "minor": minor, "gitVersion": f"v1.{minor}"}})

    def kubectl_config(self, *_):
        return 0, "kind-x\n"

    def kubectl_api_versions(self, *_):
        return 0, "v1\napps/v1\npolicy/v1\nnetworking.k8s.io/v1\nautoscaling/v2\n"

    def kubectl_apply(self, _, stdin):
        sent = json.loads(stdin)["items"]
        assert sent
        assert {one["kind"] for one in sent}.isdisjoint({"ScaledObject", "Pod"})
        return 0, "", "Warning: would violate PodSecurity\n" if self.fault == "warning" else ""

    def kubectl_drain(self, words, _):
        if self.fault != "stays":
            self.pods = [one for one in self.pods if one["spec"]["nodeName"] != words[1]]
        return 0, ""

    def kubectl_diff(self, *_):
        return (1, "-  sessionAffinity: None") if self.fault == "fighting" else (0, "")

    def kubectl_create(self, words, stdin):
        if self.fault == "taken" and words[1] == "namespace":
            return 1, "namespaces already exists"
        dry = "--dry-run=server" in words
        if dry and (self.fault == "strict" or (self.fault == "strict with tests" and "-test-dry-run" in stdin)):
            return 1, "violates PodSecurity"
        return 0, ""

    def kubectl_get(self, words, _):
        if words[1] == "nodes":
            return 0, json.dumps({"items": self.nodes})
        if words[1] == "pods":
            return 0, json.dumps({"items": self.pods})
        if words[1] == "pod/load":
            return 0, json.dumps({"status": {"phase": "Succeeded"}})
        kinds = {"deployments.apps": "Deployment/"}.get(words[1], "")
        return 0, json.dumps({"items": [one for name, one in self.objects.items() if name.startswith(kinds)]})

    def kubectl_logs(self, *_):
        failures = ["status 503"] if self.fault == "dropping" else []
        return 0, "no matter\n" + json.dumps({"answers": 40, "failures": failures}) + "\n"


def run(*, pods, fault=None, skip=(), nodes=2, there=PODS_BEFORE):
    scripted = ScriptedCluster(fault, nodes)
    scripted.pods = there
    time = iter(range(10_000))
    cluster = Cluster(
        "vision", "shop", VALUES, 30, run=scripted.run, has=lambda name: fault != f"no {name}", sleep=lambda _: None,
        clock=lambda: next(time),
    )  # fmt: skip
    code = runner.run(cluster, runner.steps(pods=pods, skip=skip), keep=False)
    return SimpleNamespace(code=code, said="\n".join(cluster.said), commands=scripted.commands, given=scripted.given)


def test_all_steps_hold_without_a_pod():
    done = run(pods=False)
    assert done.code == 0, done.said
    assert "12 steps hold" in done.said
    assert not {words[1] for words in done.commands} & PODS
    assert not any("--wait" in words for words in done.commands)


def test_all_steps_hold_with_pods():
    done = run(pods=True)
    assert done.code == 0, done.said
    assert "15 steps hold" in done.said
    asked = [words[1] for words in done.commands]
    assert asked.index("test") < asked.index("drain") < asked.index("uncordon")
    assert done.said.count("40 answers, 0 failures") == 3


@pytest.mark.parametrize("pods", [False, True])
def test_each_step_says_what_must_hold_and_what_was_seen(pods):
    said = run(pods=pods).said
    for name, _ in runner.steps(pods=pods):
        for part in ("must hold", "seen"):
            assert (
                len(
                    said.partition(f"\n{name}: {part}: " if said.index(name) else f"{name}: {part}: ")[2].partition(
                        "\n"
                    )[0]
                )
                > 5
            ), (name, part)
    assert "seen: Kubernetes v1.33+, context kind-x" in said
    assert "not known here, so left out: PodMonitor, PrometheusRule, ScaledObject" in said
    assert "seen: refused: - gateway.terminationGracePeriodSeconds is 1, shorter" in said
    assert "shop-qwen3-vl-gateway kept its 2 replicas" in said
    if pods:
        assert "seen: What colour is the shirt? 'red' (right)" in said


@pytest.mark.parametrize(
    ("fault", "step", "why"),
    [
        ("no kubectl", "cluster", "no kubectl in "),
        ("away", "cluster", "no API server answers: set KUBECONFIG"),
        ("old", "cluster", "Kubernetes 1.28 is too old"),
        ("taken", "namespace", "already exists"),
        ("warning", "presets", "preset a10: Warning: would violate PodSecurity"),
        ("forgetful", "install", "was rendered and is not there"),
        ("strict", "admission", "violates PodSecurity"),
        ("strict with tests", "admission", "violates PodSecurity"),
        ("fighting", "diff", "sessionAffinity"),
        ("restless", "same-again", "was changed by an upgrade with the same values"),
        ("forgets replicas", "autoscaling", "has 1 replicas with autoscaling on, not 2"),
        ("new secrets", "upgrade", "was generated anew"),
        ("made anew", "same-again", "was made anew"),
        ("takes anything", "refused-upgrade", "helm took values that do not go together"),
        ("stuck", "rollback", "is not as in revision 1"),
        ("clinging", "uninstall", "everything of the release is gone: not within 30 s"),
        ("thorough", "uninstall", "Secret/shop-qwen3-vl-keys is gone"),
    ],
)
def test_a_cluster_that_does_wrong_is_found_out(fault, step, why):
    done = run(pods=False, fault=fault)
    assert done.code == 1
    assert f"{step}: FAILED" in done.said
    assert why in done.said


def test_an_answer_that_does_not_come_is_a_failure():
    done = run(pods=True, fault="dropping")
    assert done.code == 1
    assert "upgrade: FAILED: requests failed" in done.said


def test_a_node_can_be_drained_only_where_there_is_another():
    alone = run(pods=True, nodes=1)
    assert "nodes: FAILED: draining needs two nodes that take pods, and there is one" in alone.said
    # Said before minutes of other steps, and before anything was made.
    assert not [words for words in alone.commands if words[1] in {"create", "install", "delete"}]
    assert run(pods=True, nodes=1, skip=["drain"]).code == 0


def test_the_node_that_is_drained_has_a_gateway_that_stays_and_no_engine():
    [drained] = [words[2] for words in run(pods=True).commands if words[1] == "drain"]
    assert drained == "one"
    both = run(pods=True, there=[a_pod("gateway", "one"), a_pod("engine", "one"), a_pod("redis", "two")])
    assert both.code == 1
    assert "drain: FAILED: no node has a gateway and no engine (gateways: ['one'], engines: ['one'])" in both.said


def test_a_node_that_is_not_empty_after_all_is_a_failure_and_takes_pods_again():
    done = run(pods=True, fault="stays")
    assert done.code == 1
    assert "drain: FAILED: one was drained and still has gateway-one" in done.said
    assert "uncordon" in [words[1] for words in done.commands]


def test_a_failure_is_explained_by_pods_events_and_logs():
    done = run(pods=True, fault="dropping")
    after = [words[1:] for words in done.commands][-4:]
    assert [words[0] for words in after] == ["get", "get", "logs", "delete"]
    assert [words[1] for words in after[:2]] == ["pods", "events"]


def closed_port(folder):
    """A kubeconfig of a server that is not there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
    one = {"name": "x", "cluster": {"server": server}}
    context = {"name": "x", "context": {"cluster": "x"}}
    config = folder / "kubeconfig"
    config.write_text(
        json.dumps(
            {"apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": [one], "contexts": [context]}
        )
    )
    return config


def form(words):
    """A command without what is said to it: its verbs and flags."""
    return tuple(word.partition("=")[0] for word in words if word.startswith("-") or word.isalpha())


@pytest.mark.timeout(300)
def test_the_pinned_helm_and_kubectl_know_every_command_and_flag(tmp_path):
    """Each command of a whole run, given to the real programs: they get as far as the server, which is not there."""
    environ = {"KUBECONFIG": str(closed_port(tmp_path)), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = run(pods=True)
    commands = {(tool, form(words)): (tool, words, stdin) for tool, words, stdin in done.given}
    assert len(commands) > 25
    for tool, words, stdin in commands.values():
        # Waiting for a server that is away is not what is asked.
        argv = [str(chart.HELM.parent / tool), *(re.sub(r"(^|=)30s$", r"\g<1>1s", word) for word in words)]
        real = subprocess.run(
            argv, input=stdin or "", capture_output=True, text=True, check=False, timeout=60, env=environ
        )
        told = real.stdout + real.stderr
        local = words[2] in {"template", "config"}
        assert (real.returncode == 0) is local, (words, told)
        assert local or re.search(r"connection refused|cluster unreachable|was refused", told), (words, told)


def test_the_namespace_is_taken_away_whatever_happens():
    for fault in (None, "strict"):
        last = run(pods=False, fault=fault).commands[-1]
        assert last[:3] == ("kubectl", "delete", "namespace")


@pytest.mark.parametrize(("fault", "skip"), [("taken", ()), ("away", ()), (None, ["namespace"])])
def test_a_namespace_that_was_there_before_is_never_taken_away(fault, skip):
    assert not [words for words in run(pods=False, fault=fault, skip=skip).commands if words[1] == "delete"]


def test_secrets_are_never_printed():
    done = run(pods=False, fault="new secrets")
    for revision in done.commands:
        assert "first-key" not in str(revision)
    assert "eyJ" not in done.said
    assert "eyJ" not in run(pods=True, fault="dropping").said
