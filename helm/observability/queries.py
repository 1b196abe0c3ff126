"""Every query of the generated dashboards and of the rules, and which metric names they may use.

A name must be one of the gateway's own, one of vLLM's (`make verify-engine` asks the pinned release), one that a rule
records, or one that a listed exporter documents. Everything else is a panel that stays empty for ever.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gateway.metrics_reference import families

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = Path(__file__).resolve().parents[1] / "qwen3-vl" / "files"

EXPORTERS = {
    # Not there without a cluster, and the place that documents the name.
    "certmanager_certificate_expiration_timestamp_seconds": "cert-manager, docs/devops-tips/prometheus-metrics",
    "kube_deployment_status_condition": "kube-state-metrics, docs/metrics/workload/deployment-metrics.md",
    "probe_ssl_earliest_cert_expiry": "blackbox_exporter, http and tcp probes",
    "qwen3vl_host_deploy_last_end_timestamp_seconds": "serving/host, by node_exporter's textfile collector",
    "qwen3vl_host_deploy_last_success": "serving/host, by node_exporter's textfile collector",
    "kubelet_volume_stats_available_bytes": "kubelet, Kubernetes metrics reference",
    "kubelet_volume_stats_capacity_bytes": "kubelet, Kubernetes metrics reference",
    "node_filesystem_avail_bytes": "node_exporter, filesystem collector",
    "node_filesystem_size_bytes": "node_exporter, filesystem collector",
}
EVERY_PROCESS = {"process_start_time_seconds"}
"""What every client library of Prometheus exports, vLLM's among them."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_MATCHERS = re.compile(r"\{[^}]*\}")
_RANGE = re.compile(r"\[[^\]]*\]")
_VARIABLE = re.compile(r"\$\{?\w+\}?")
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*(?!\s*\()\b")
_SELECTOR = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(\{[^}]*\})?(\[[^\]]*\])?")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "by", "without", "on", "ignoring"}
_DURATION = re.compile(r"\b\d+(?:ms|[smhdwy])\b")
_COUNT = re.compile(r"\b\d[\d.]*(?:e[+-]?\d+)?\b")


@dataclass(frozen=True)
class Asked:
    """A query and who asks it."""

    expr: str
    where: str
    """`board / panel` or `file / alert`."""
    kind: str
    """`panel`, `annotation`, `alert` or `record`."""


def panel_queries(folder: Path = FILES / "dashboards") -> Iterator[Asked]:
    """Every query of every panel, and of the annotations."""
    for path in sorted(folder.glob("*.json")):
        board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for note in board["annotations"]["list"]:
            yield Asked(note["expr"], f"{board['title']} / {note['name']}", "annotation")
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield Asked(target["expr"], f"{board['title']} / {panel['title']}", "panel")


def rules(folder: Path = FILES / "alerts") -> Iterator[dict[str, Any]]:
    """Every rule as it stands, with its file's name as `file`."""
    for path in sorted(folder.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                yield {**rule, "file": path.name}


def rule_queries(folder: Path = FILES / "alerts") -> Iterator[Asked]:
    """Every rule's query."""
    for rule in rules(folder):
        kind = "alert" if "alert" in rule else "record"
        yield Asked(rule["expr"], f"{rule['file']} / {rule[kind]}", kind)


def names_in(expr: str) -> set[str]:
    """The metric names of a PromQL expression: what is neither a function, a keyword, a label nor a number."""
    bare = _STRING.sub("", expr)
    for pattern in (_GROUPING, _MATCHERS, _RANGE, _VARIABLE, _DURATION, _COUNT):
        bare = pattern.sub(" ", bare)
    return {name for name in _NAME.findall(bare) if name.lower() not in _WORDS}


def selectors_in(expr: str) -> set[str]:
    """The vector selectors of an expression, without their ranges: `name{matchers}`."""
    names = names_in(expr)
    return {name + matchers for name, matchers, _ in _SELECTOR.findall(expr) if name in names}


def known_names(folder: Path = FILES) -> dict[str, str]:
    """Each name that a query may use, but for vLLM's, and who exports it."""
    known = {series: "gateway" for family in families() for series in family.series()}
    known |= {rule["record"]: "rule" for rule in rules(folder / "alerts") if "record" in rule}
    known |= dict.fromkeys(EVERY_PROCESS, "process")
    known |= dict.fromkeys(gpu_names(folder), "gpu")
    return known | dict.fromkeys(EXPORTERS, "exporter")


def gpu_names(folder: Path = FILES) -> set[str]:
    """What dcgm-exporter collects with our counters."""
    lines = (folder / "dcgm" / "counters.csv").read_text(encoding="utf-8").splitlines()
    return {line.partition(",")[0].strip() for line in lines if line and not line.startswith("#")}


def source_of(name: str, known: dict[str, str]) -> str | None:
    """Who exports a metric; None when nobody does."""
    return "vllm" if name.startswith("vllm:") else known.get(name)


def unknown_names(asked: list[Asked], known: dict[str, str]) -> list[str]:
    """One line for each query that uses a name that nobody exports."""
    return [
        f"{query.where}: nobody exports {name}"
        for query in asked
        for name in sorted(names_in(query.expr))
        if source_of(name, known) is None
    ]
