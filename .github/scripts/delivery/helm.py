"""What helm is asked, and what its history means. The choices are pure functions of the history."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from delivery import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from delivery.tools import Done

GOOD = ("deployed", "superseded")
QUERY_TIMEOUT_S = 60.0
BEYOND_S = 120.0
"""helm's --timeout is for each of its waits, so the process as a whole gets more."""
HISTORY = 50
SHORTEST_COMMIT = 7
"""Characters of an abbreviation; a number with fewer digits is a revision."""


class HelmError(Exception):
    """helm could not be asked; the message is its own."""


@dataclass(frozen=True)
class Revision:
    """One entry of a release's history."""

    number: int
    status: str
    updated: datetime | None
    chart: str
    app_version: str
    description: str

    @property
    def pending(self) -> bool:
        """Whether an operation on it has begun and not ended."""
        return self.status.startswith("pending")


@dataclass(frozen=True)
class Helm:
    """One release in one namespace."""

    release: str
    namespace: str
    run: Callable[[list[str], float], Done]
    timeout_s: float
    """For a release to become ready."""

    def _argv(self, *words: str) -> list[str]:
        return ["helm", *words, "--namespace", self.namespace]

    def history(self) -> tuple[Revision, ...]:
        """Return every kept revision, the oldest first; none before the first release. Raises HelmError."""
        done = self.run(self._argv("history", self.release, "--max", str(HISTORY), "--output", "json"), QUERY_TIMEOUT_S)
        if not done.ok:
            if "release: not found" in done.err:
                return ()
            raise HelmError(done.reason)
        return parse(done.out)

    def upgrade(self, chart: str, words: Sequence[str], description: str) -> Done:
        """Install or upgrade, and wait until everything is ready."""
        argv = self._argv("upgrade", self.release, chart, "--install", "--cleanup-on-fail", *words)
        argv += ["--wait", "--timeout", f"{self.timeout_s:g}s", "--description", description]
        return self.run([*argv, "--history-max", str(HISTORY)], self.timeout_s + BEYOND_S)

    def rollback(self, to: Revision) -> Done:
        """Make an earlier revision the current one again, as a new revision, and wait until it is ready."""
        description = (
            to.description if to.description.startswith("Rollback to") else f"Rollback to {to.number}: {to.description}"
        )
        argv = self._argv("rollback", self.release, str(to.number), "--cleanup-on-fail")
        argv += ["--wait", "--timeout", f"{self.timeout_s:g}s", "--description", description[:250]]
        return self.run([*argv, "--history-max", str(HISTORY)], self.timeout_s + BEYOND_S)

    def uninstall(self) -> Done:
        """Take away a first release that never became one."""
        argv = self._argv("uninstall", self.release, "--wait", "--timeout", f"{self.timeout_s:g}s")
        return self.run(argv, self.timeout_s + BEYOND_S)


def parse(text: str) -> tuple[Revision, ...]:
    """Read `helm history --output json`. Raises HelmError."""
    try:
        entries = json.loads(text)
        if not isinstance(entries, list):
            raise HelmError("helm's history cannot be read: it is no list")
        return tuple(
            Revision(
                number=int(entry["revision"]),
                status=entry["status"],
                updated=_when(entry.get("updated", "")),
                chart=entry.get("chart", ""),
                app_version=entry.get("app_version", ""),
                description=entry.get("description", ""),
            )
            for entry in sorted(entries, key=lambda entry: int(entry["revision"]))
        )
    except (ValueError, LookupError, TypeError) as exc:
        raise HelmError(f"helm's history cannot be read: {exc!r}") from exc


def _when(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def serving(history: Sequence[Revision]) -> Revision | None:
    """Return the revision that serves, which is the one to go back to: helm keeps it `deployed` until one succeeds."""
    for status in GOOD:
        for revision in reversed(history):
            if revision.status == status:
                return revision
    return None


def overtaken(history: Sequence[Revision], version: str) -> str | None:
    """Return the version that serves when it is newer than this one; None when it is not, or when one is no version."""
    current = serving(history)
    served = current.description.removeprefix("Rollback to").rpartition(": ")[2].partition(" ")[0] if current else ""
    return served if versions.newer(served, version) else None


def find(history: Sequence[Revision], wanted: str) -> Revision:
    """Find a kept revision by its number, or the newest that was good by version or commit. Raises LookupError."""
    current = serving(history)
    good = [revision for revision in history if revision.status in GOOD]
    if wanted.isdecimal() and len(wanted) < SHORTEST_COMMIT:
        found = [revision for revision in good if revision.number == int(wanted)]
    else:
        found = [revision for revision in good if _says(revision, wanted)]
        # Only then the chart's own version, which many releases of other images share.
        found = found or [revision for revision in good if revision.app_version == wanted.removeprefix("v")]
    if not found:
        raise LookupError(f"no kept release that was good is {wanted}: `delivery releases` lists them")
    if found[-1] == current:
        raise LookupError(f"{wanted} is what serves already (revision {found[-1].number})")
    return found[-1]


def table(history: Sequence[Revision], now: float) -> str:
    """List the kept revisions, the newest first, for people."""
    lines = ["revision  status       age              release"]
    for revision in reversed(history):
        age = "?" if revision.updated is None else str(datetime.fromtimestamp(now, UTC) - revision.updated)
        words = f"{revision.description} ({revision.chart})"
        lines.append(f"{revision.number:<9} {revision.status:<12} {age.partition('.')[0]:<16} {words}")
    return "\n".join(lines)


def _says(revision: Revision, wanted: str) -> bool:
    """Whether a description, `v0.2.0 0123456789ab`, names a version or a commit."""
    words = revision.description.replace(":", " ").split()
    if any(word.removeprefix("v") == wanted.removeprefix("v") for word in words):
        return True
    return len(wanted) >= SHORTEST_COMMIT and any(word.startswith(wanted[:12]) for word in words)
