"""The chart, rendered by the pinned helm. Each set of values is rendered once in a session."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "qwen3-vl"
PRESETS = {path.stem: path for path in sorted((CHART / "ci").glob("*.yaml"))}
HELM = ROOT / ".cache" / "chart" / "helm"
TOOLS = ROOT / ".venv-chart" / "bin"
RELEASE, NAMESPACE = "shop", "vision"
FAST = {"GOGC": "off"}
"""Helm ends before its memory would be worth collecting: a third less CPU."""
DIGEST = "sha256:" + "a" * 64
PLAIN: dict[str, Any] = {
    "gateway": {"image": {"digest": DIGEST}},
    "engine": {"image": {"digest": DIGEST}},
    "redis": {"image": {"digest": DIGEST}},
    "pools": {"l4": {"profile": "l4"}},
}
"""The least that a user must say."""

PER_POD = "qwen3-vl/pool"
COMPONENT = "app.kubernetes.io/component"


class Refused(Exception):
    """Helm did not render; the text is its standard error."""


class _Strict(yaml.CSafeLoader):
    """YAML in which a key that is given twice is an error, as it is to a server-side apply."""


def _unique(loader: _Strict, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    names = [loader.construct_object(name, deep=True) for name, _ in node.value]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"{sorted(twice)} twice{node.start_mark}"
    return dict(zip(names, (loader.construct_object(value, deep=True) for _, value in node.value), strict=True))


_Strict.add_constructor("tag:yaml.org,2002:map", _unique)


def run_helm(*argv: str, check: bool = True, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    assert HELM.exists(), "no helm: run `make chart-tools`"
    environ = (
        {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "HELM_CACHE_HOME": "/nonexistent"} | FAST | (environ or {})
    )
    done = subprocess.run([str(HELM), *argv], capture_output=True, text=True, check=False, env=environ)
    if check and done.returncode:
        raise Refused(done.stderr)
    return done


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Values over values, as Helm merges them; None takes a key out."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if value is None:
                result.pop(key, None)
                continue
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def at(path: str, value: object) -> dict[str, Any]:
    """`at("a.b", 1)` is {"a": {"b": 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def render_text(values: dict[str, Any] | None = None, preset: str | None = None, chart: Path = CHART) -> str:
    return _rendered(json.dumps(values or {}, sort_keys=True), preset, str(chart))


@functools.cache
def _rendered(values: str, preset: str | None, chart: str) -> str:
    argv = ["template", RELEASE, chart, "--namespace", NAMESPACE]
    if preset:
        argv += ["--values", str(PRESETS[preset])]
    done = subprocess.run(
        [str(HELM), *argv, "--values", "-"],
        input=values, capture_output=True, text=True, check=False, timeout=60, env=os.environ | FAST,
    )  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def parse(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(text, Loader=_Strict) if document]


def render(values: dict[str, Any] | None = None, preset: str | None = None) -> list[dict[str, Any]]:
    """The manifests, for the caller to change as it likes; raises Refused."""
    manifests: list[dict[str, Any]] = json.loads(_parsed(render_text(values, preset)))
    return manifests


@functools.cache
def _parsed(text: str) -> str:
    """YAML takes long to read, and JSON does not."""
    return json.dumps(parse(text))


def plain(*layers: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifests of the least values with these over them."""
    return render(merged(PLAIN, *layers))


def kind(manifests: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [one for one in manifests if one["kind"] == name]


def only(manifests: list[dict[str, Any]], kind_name: str, suffix: str) -> dict[str, Any]:
    """The one object of this kind whose name ends so."""
    found = [one for one in kind(manifests, kind_name) if one["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, [one["metadata"]["name"] for one in kind(manifests, kind_name)]
    return found[0]


def pod_templates(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every pod that the manifests make: name -> {metadata, spec}."""
    found = {}
    for one in manifests:
        name, spec = one["metadata"]["name"], one.get("spec", {})
        if one["kind"] == "Pod":
            found[name] = {"metadata": one["metadata"], "spec": spec}
        elif one["kind"] == "LeaderWorkerSet":
            for role in ("leaderTemplate", "workerTemplate"):
                found[f"{name}/{role}"] = spec["leaderWorkerTemplate"][role]
        elif "template" in spec:
            found[name] = spec["template"]
    return found


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def environment(container: dict[str, Any], secrets: str = "secret") -> dict[str, str]:
    """A container's variables as its process sees them, with `secrets` for every secret."""
    found: dict[str, str] = {}
    for one in container.get("env", []):
        value = one.get("value", secrets)
        for name, known in found.items():
            value = value.replace(f"$({name})", known)
        found[one["name"]] = value
    return found


def leaves(node: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every value that holds no other, empty maps and lists among them, with its path (lists are not counted)."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(node, list) and node:
        for value in node:
            yield from leaves(value, path)
    else:
        yield path, node


MULTI_NODE = merged(
    PLAIN,
    {
        "pools": {
            "l4": None,
            "h100": {
                "profile": "h100-x4",
                "leaderWorker": {"enabled": True, "topologyKey": "example.com/rack"},
                "weights": {"volume": {"accessMode": "ReadWriteMany"}},
                "compileCache": {"volume": {"accessMode": "ReadWriteMany"}},
            },
        }
    },
)
EVERYTHING = merged(
    PLAIN,
    {
        "gateway": {
            "autoscaling": {"kind": "keda"},
            "settings": {"image_allowed_hosts": ["*"], "otlp_endpoint": "http://collector.tracing:4318"},
        },
        "networkPolicy": {"gatewayEgress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 4318}]}]},
        "pools": {
            "l4": {"autoscaling": {"kind": "hpa", "maxReplicas": 1, "externalMetric": "qwen3_vl_l4_demand"}},
            "big": {"profile": "h100-x2", "autoscaling": {"kind": "keda", "maxReplicas": 1}},
        },
        "monitoring": {
            "podMonitors": True,
            "rules": True,
            "dashboards": True,
            "dashboardLanguages": ["en", "zh"],
            "dcgmCounters": True,
            "prometheusUrl": "http://prometheus.monitoring:9090",
        },
        "exposure": {
            "trustedProxies": ["10.8.0.0/14"],
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["vision.example.com"]},
            "inferencePool": {
                "enabled": True,
                "endpointPicker": {"name": "picker"},
                "parentRefs": [{"name": "inner"}],
                "from": [{"namespaceSelector": {}}],
            },
        },
    },
)
"""What no preset has: every other optional object."""

SAMPLES: dict[str, tuple[dict[str, Any], str | None]] = {
    **{f"preset {name}": ({}, name) for name in PRESETS},
    "multi-node": (MULTI_NODE, None),
    "everything": (EVERYTHING, None),
}
