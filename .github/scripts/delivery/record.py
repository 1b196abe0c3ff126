"""The deploy log: one entry for each attempt, as a file (the run's artifact) and as a ConfigMap in the cluster."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from delivery.tools import Done

KEEP = 50
TIMEOUT_S = 60.0
COMPONENT = "deploy-log"


class Result(StrEnum):
    """How an attempt ended."""

    UNDER_WAY = "under_way"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """What served before still serves, untouched; or there was nothing before."""
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    """A person is needed."""
    UNKNOWN = "unknown"
    """The tool itself failed; a person is needed."""
    CANCELLED = "cancelled"
    """Stopped from outside; the next run recovers the release."""


@dataclass(frozen=True)
class Step:
    """One thing that was done."""

    name: str
    ok: bool
    seconds: float
    detail: str = ""


@dataclass
class Entry:
    """One attempt."""

    kind: str
    """deploy or rollback."""
    environment: str
    release: str
    actor: str
    commit: str
    version: str
    run_url: str
    started_at: str
    images: dict[str, str] = field(default_factory=dict)
    """Digests by the value that they were given as."""
    revision_before: int | None = None
    revision_after: int | None = None
    result: Result = Result.UNDER_WAY
    reason: str = ""
    steps: list[Step] = field(default_factory=list)
    canary: dict[str, Any] = field(default_factory=dict)
    finished_at: str = ""
    seconds: float = 0.0


def stamp(at: float) -> str:
    """Write a Unix time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def write(entry: Entry, path: Path) -> None:
    """Write the entry as JSON."""
    path.write_text(json.dumps(asdict(entry), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def manifest(entry: Entry) -> dict[str, Any]:
    """Make the entry's ConfigMap. Its name sorts by time."""
    moment = "".join(letter for letter in entry.started_at[:19] if letter.isdigit())
    labels = {
        "app.kubernetes.io/instance": entry.release,
        "app.kubernetes.io/component": COMPONENT,
        "app.kubernetes.io/managed-by": "delivery",
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{entry.release}-deploy-{moment}", "labels": labels},
        "immutable": True,
        "data": {"entry.json": json.dumps(asdict(entry), ensure_ascii=False)},
    }


def keep_in_cluster(entry: Entry, namespace: str, run: Callable[[list[str], float, str | None], Done]) -> str | None:
    """Put the entry into the cluster and take away the oldest beyond KEEP; return what went wrong, if anything."""
    base = ["kubectl", "--namespace", namespace]
    put = run([*base, "create", "--filename", "-"], TIMEOUT_S, json.dumps(manifest(entry)))
    if not put.ok:
        return put.reason
    selector = f"app.kubernetes.io/component={COMPONENT},app.kubernetes.io/instance={entry.release}"
    listed = run([*base, "get", "configmaps", "--selector", selector, "--output", "name"], TIMEOUT_S, None)
    if not listed.ok:
        return listed.reason
    old = sorted(listed.out.split())[:-KEEP]
    if old and not (gone := run([*base, "delete", *old], TIMEOUT_S, None)).ok:
        return gone.reason
    return None
