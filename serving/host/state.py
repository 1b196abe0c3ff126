"""What serves, what is kept, what is under way: one small file, replaced whole, so that a kill leaves old or new.

The file is the truth about intentions. What really runs may differ after a kill or a reboot; Change.settle
brings it back.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1


class BadState(Exception):
    """The state cannot be read: a person has to look."""


@dataclass(frozen=True)
class Release:
    """One version that can be run."""

    version: str
    gateway: str
    """REPOSITORY@sha256:…"""
    engine: str
    commit: str = ""
    served_at: str = ""


@dataclass(frozen=True)
class Serving:
    """What clients reach."""

    version: str
    gateway_slot: str
    engine_slot: str


@dataclass(frozen=True)
class Attempt:
    """A deployment or rollback that has begun."""

    entry: dict[str, Any]
    """Of the deploy log, as it was when this was written."""
    committed: bool = False
    """The new version serves; what is left is cleaning up."""


@dataclass(frozen=True)
class State:
    """The file's content."""

    releases: tuple[Release, ...] = ()
    """Oldest first, by when they last served."""
    serving: Serving | None = None
    attempt: Attempt | None = None

    def release(self, version: str) -> Release | None:
        """Find a kept version."""
        return next((release for release in self.releases if release.version == version), None)

    @property
    def current(self) -> Release | None:
        """The version that serves."""
        return self.release(self.serving.version) if self.serving else None

    @property
    def previous(self) -> Release | None:
        """The version that served before."""
        others = [release for release in self.releases if release != self.current]
        return others[-1] if others else None

    def served(self, release: Release, serving: Serving, keep: int) -> State:
        """From now on this version serves; the oldest beyond `keep` are forgotten."""
        others = [kept for kept in self.releases if kept.version != release.version]
        return replace(self, releases=(*others, release)[-keep:], serving=serving)


@dataclass(frozen=True)
class StateFile:
    """state.json in a folder of root's."""

    path: Path

    def load(self) -> State:
        """Read it; a missing one is a new host. Raises BadState."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError) as exc:
            raise BadState(f"{self.path} cannot be read: {exc}") from exc
        try:
            if content["format"] != FORMAT:
                raise BadState(f"{self.path} has format {content['format']}; this program knows {FORMAT}")
            serving, attempt = content["serving"], content["attempt"]
            return State(
                tuple(Release(**release) for release in content["releases"]),
                Serving(**serving) if serving else None,
                Attempt(**attempt) if attempt else None,
            )
        except (KeyError, TypeError) as exc:
            raise BadState(f"{self.path} is not of the right form: {exc!r}") from exc

    def save(self, state: State) -> None:
        """Replace it whole, on the disk before this returns."""
        write_whole(self.path, json.dumps({"format": FORMAT, **asdict(state)}, indent=1, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file so that a reader, or a machine that loses power, sees the old or the new, never a part."""
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
