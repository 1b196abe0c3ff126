"""The runner of `make cluster-test`, before a scripted cluster: which commands it gives, and that it notices what it must.

The manifests are helm's own; what an API server does with them is scripted, and each fault is one that a real one could show.
"""

from __future__ import annotations

import json
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


class ScriptedCluster:
    """Keeps what helm sends. `fault` is what it does wrong."""

    def __init__(self, fault=None, nodes=2):
        self.fault, self.nodes = fault, NODES[:nodes]
        self.objects, self.revisions, self.hooks, self.commands, self.serial = {}, [], [], [], 0

    def run(self, argv, stdin=None, _timeout_s=None):
        tool = argv[0].rpartition("/")[2]
        words = [word for word in argv[1:] if word not in {"--namespace", "vision"}]
        self.commands.append((tool, *words))
        answer = getattr(self, f"{tool}_{words[0].replace('-', '_')}", None)
        return answer(words, stdin) if answer else (0, "")

    def _apply(self, manifests):
        made = {}
        for one in manifests:
            name = f"{one['kind']}/{one['metadata']['name']}"
            old = self.objects.get(name)
            self.serial += 1
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
            return 0, json.dumps({"items": [{"spec": {"nodeName": "one"}}]})
        if words[1] == "pod/load":
            return 0, json.dumps({"status": {"phase": "Succeeded"}})
        kinds = {"deployments.apps": "Deployment/"}.get(words[1], "")
        return 0, json.dumps({"items": [one for name, one in self.objects.items() if name.startswith(kinds)]})

    def kubectl_logs(self, *_):
        failures = ["status 503"] if self.fault == "dropping" else []
        return 0, "no matter\n" + json.dumps({"answers": 40, "failures": failures}) + "\n"


def run(*, pods, fault=None, skip=(), nodes=2):
    scripted = ScriptedCluster(fault, nodes)
    time = iter(range(10_000))
    cluster = Cluster(
        "vision", "shop", VALUES, 30, run=scripted.run, has=lambda name: fault != f"no {name}", sleep=lambda _: None,
        clock=lambda: next(time),
    )  # fmt: skip
    code = runner.run(cluster, runner.steps(pods=pods, skip=skip), keep=False)
    return SimpleNamespace(code=code, said="\n".join(cluster.said), commands=scripted.commands)


def test_all_steps_hold_without_a_pod():
    done = run(pods=False)
    assert done.code == 0, done.said
    assert "10 steps hold" in done.said
    assert not {words[1] for words in done.commands} & PODS
    assert not any("--wait" in words for words in done.commands)


def test_all_steps_hold_with_pods():
    done = run(pods=True)
    assert done.code == 0, done.said
    assert "12 steps hold" in done.said
    asked = [words[1] for words in done.commands]
    assert asked.index("test") < asked.index("drain") < asked.index("uncordon")
    assert done.said.count("40 answers, 0 failures") == 3


@pytest.mark.parametrize(
    ("fault", "step", "why"),
    [
        ("no kubectl", "cluster", "no kubectl in "),
        ("away", "cluster", "no API server answers: set KUBECONFIG"),
        ("old", "cluster", "Kubernetes 1.28 is too old"),
        ("taken", "namespace", "already exists"),
        ("forgetful", "install", "was rendered and is not there"),
        ("strict", "admission", "violates PodSecurity"),
        ("strict with tests", "admission", "violates PodSecurity"),
        ("fighting", "diff", "sessionAffinity"),
        ("restless", "same-again", "was changed by an upgrade with the same values"),
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
    assert "needs two nodes" in run(pods=True, nodes=1).said
    assert run(pods=True, nodes=1, skip=["drain"]).code == 0


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
