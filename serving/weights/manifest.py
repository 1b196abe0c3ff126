"""Checksums: reading `manifest.json` and `SHA256SUMS`, writing `manifest.json`, and the plan of a fetch. Pure.

`manifest.json` is `{"version": 1, "files": {"model.safetensors": {"size": 123, "sha256": "…"}}}`; `SHA256SUMS` is what
`sha256sum *` prints. Where there is neither, the hub's own metadata count (SHA-256 of LFS files, git's SHA-1 of small
ones); where there is nothing at all, the first fetch computes the checksums and the later ones hold it to them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from serving.weights.errors import Misconfigured, NotThere, Refused
from serving.weights.names import Kind, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUMS_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
FORMAT_VERSION = 1
Algorithm = Literal["sha256", "git-sha1"]


@dataclass(frozen=True)
class Checksum:
    """What a file's bytes must come to."""

    algorithm: Algorithm
    """`git-sha1` is the id of a git blob: SHA-1 over `blob <size>`, a zero byte and the content."""
    hex: str


@dataclass(frozen=True)
class Entry:
    """One file at the source."""

    name: str
    size: int
    """Bytes."""
    checksum: Checksum | None
    """None: the source does not vouch for it."""
    version: str
    """What changes when the file at the source does: an ETag, a commit, a time of change."""

    @property
    def identity(self) -> str:
        """Text that is the same for the same bytes, as far as that is known before they are fetched."""
        known = f"{self.checksum.algorithm}:{self.checksum.hex}" if self.checksum else f"version:{self.version}"
        return f"{self.name}\t{self.size}\t{known}"


@dataclass(frozen=True)
class Promise:
    """What a manifest says about one file."""

    sha256: str
    size: int | None
    """Bytes; None when the manifest does not say (SHA256SUMS)."""


@dataclass(frozen=True)
class Plan:
    """What is going to be fetched."""

    files: tuple[Entry, ...]
    left_out: tuple[tuple[str, str], ...]
    """Name and reason."""

    @property
    def digest(self) -> str:
        """Name of the revision: SHA-256 over every file's identity, in hexadecimal."""
        lines = sorted(entry.identity for entry in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Size of everything that is fetched."""
        return sum(entry.size for entry in self.files)

    @property
    def unvouched(self) -> tuple[str, ...]:
        """Files whose checksum nobody promised."""
        return tuple(entry.name for entry in self.files if entry.checksum is None)


def parse(text: str, where: str) -> dict[str, Promise]:
    """Read a manifest in either format. Raises Misconfigured: a manifest that cannot be read is never ignored."""
    promises = _parse_json(text, where) if text.lstrip().startswith("{") else _parse_sums(text, where)
    if not promises:
        raise Misconfigured(f"{where} names no file: write one with `sha256sum *`, or give --manifest FILE")
    for name in promises:
        judge(name)
    return promises


def _parse_sums(text: str, where: str) -> dict[str, Promise]:
    promises = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if not (match := _SUMS_LINE.fullmatch(line)):
            raise Misconfigured(f"{where}, line {number} is not what `sha256sum *` writes: write the file again")
        promises[match[2].removeprefix("./")] = Promise(match[1].lower(), None)
    return promises


def _parse_json(text: str, where: str) -> dict[str, Promise]:
    wrong = Misconfigured(
        f'{where} is no manifest like {{"version": 1, "files": {{NAME: {{"size": BYTES, "sha256": HEX}}}}}}: '
        "take the manifest.json of an earlier fetch, or give --manifest FILE"
    )
    try:
        table = json.loads(text)
        files: dict[str, Any] = table["files"]
        if table["version"] != FORMAT_VERSION:
            raise wrong
        promises = {str(name): Promise(entry["sha256"], entry["size"]) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise wrong from exc
    for promise in promises.values():
        if not (isinstance(promise.sha256, str) and _SHA256.fullmatch(promise.sha256) and type(promise.size) is int):
            raise wrong
    return promises


def render(files: Mapping[str, tuple[int, str]]) -> str:
    """Write a manifest.json: name -> size in bytes, SHA-256 in hexadecimal."""
    table = {name: {"size": size, "sha256": sha256} for name, (size, sha256) in sorted(files.items())}
    return json.dumps({"version": FORMAT_VERSION, "files": table}, indent=2) + "\n"


def plan(entries: Iterable[Entry], promises: Mapping[str, Promise] | None, where: str) -> Plan:
    """Choose what to fetch, each file with the strongest checksum that is known.

    With promises (a manifest), only files that it names are fetched, and all of them must be there. Raises Refused
    and NotThere.
    """
    files: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    pickles: list[str] = []
    found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        verdict = judge(entry.name)
        if verdict.kind is Kind.PICKLE:
            pickles.append(entry.name)
        if not verdict.kind.accepted:
            left_out.append((entry.name, verdict.reason))
        elif promises is None:
            files.append(entry)
        elif entry.name in promises:
            files.append(_promised(entry, promises[entry.name]))
        else:
            left_out.append((entry.name, "the manifest does not name it"))
    names = {entry.name for entry in files}
    lost = sorted(name for name in promises or {} if judge(name).kind.accepted and name not in names)
    if lost:
        raise NotThere(f"{where} lacks what the manifest names: {_some(lost)}. Is it the right revision?")
    if not any(judge(name).kind is Kind.WEIGHTS for name in names):
        if pickles:
            raise Refused(
                f"{where} has weights only as pickles ({_some(pickles)}), which can run code when they are loaded: "
                "convert them to safetensors first, or choose a revision that has safetensors"
            )
        seen = f"it has {_some([entry.name for entry in found])}" if found else "nothing is there"
        raise NotThere(f"{where} has no safetensors ({seen}): give the folder that config.json stands in")
    if not names & {"config.json", "adapter_config.json"}:
        raise NotThere(f"{where} has weights but no config.json: give the folder of a whole checkpoint")
    return Plan(tuple(files), tuple(left_out))


def _promised(entry: Entry, promise: Promise) -> Entry:
    checksum = Checksum("sha256", promise.sha256)
    if promise.size is not None and promise.size != entry.size:
        raise Refused(
            f"{entry.name} has {entry.size:,} bytes at the source, and {promise.size:,} in the manifest: "
            "one of them is of another revision"
        )
    if entry.checksum is not None and entry.checksum.algorithm == "sha256" and entry.checksum != checksum:
        raise Refused(
            f"{entry.name} has another SHA-256 at the source ({entry.checksum.hex}) than in the manifest "
            f"({promise.sha256}): one of them is of another revision"
        )
    return replace(entry, checksum=checksum)


def _some(names: list[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
