"""Where weights come from: one small Protocol, one adapter each for folders, S3, Hugging Face and ModelScope.

An adapter lists files and streams a range of one of them; everything else (parts, resuming, checksums, the disk) is the
same for all. Credentials come from the client library's own chain (environment, profile, instance role), never from the
URL, and nothing here prints one.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from serving.weights.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from serving.weights.manifest import Entry

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
"""Longest silence of a source before the part is asked for again."""
PIECE_BYTES = 256 * 2**10
"""What is read, written and claimed in the journal at once: the most that a kill costs each connection."""
MAX_FILES = 10_000
"""A listing longer than this is no checkpoint, and is not read to its end."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
FORMS = "hf://OWNER/NAME[@REVISION], modelscope://OWNER/NAME[@REVISION], s3://BUCKET/PREFIX or file:///DIR"


@dataclass(frozen=True)
class Listing:
    """What a source has."""

    entries: tuple[Entry, ...]
    revision: str | None
    """Commit, where the source has such a thing."""


class Source(Protocol):
    """A place that weights come from. Methods raise FetchError; Unreachable means that trying again may help."""

    url: str
    """As the operator wrote it; without credentials."""
    pinned: bool
    """Whether the URL names content that cannot change (a commit)."""
    reads_own_manifest: bool
    """Whether manifest.json or SHA256SUMS beside the weights are to be believed."""

    def listing(self) -> Listing:
        """List every file, with the strongest checksum that the source knows."""
        ...

    def read(self, entry: Entry, start: int, stop: int) -> AbstractContextManager[Iterator[bytes]]:
        """Stream the bytes [start, stop) of a file, in pieces of any size; fails if the file has changed."""
        ...


@dataclass(frozen=True)
class Reference:
    """A parsed URL."""

    scheme: str
    place: str
    """Bucket, repository or nothing."""
    path: str
    """Prefix or folder."""
    revision: str | None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit id, not a branch or a tag."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None


def parse(url: str) -> Reference:
    """Read a source's URL. Raises Misconfigured."""
    parts = urlsplit(url)
    if parts.query or parts.fragment or ":" in parts.netloc or ("@" in parts.netloc):
        # The URL itself is not repeated: it may hold a password.
        raise Misconfigured(f"--from takes no user, password, port or query: give {FORMS}, credentials elsewhere")
    match parts.scheme:
        case "file" if not parts.netloc and parts.path.startswith("/"):
            return Reference("file", "", unquote(parts.path), None)
        case "s3" if parts.netloc and parts.path.strip("/"):
            return Reference("s3", parts.netloc, parts.path.strip("/"), None)
        case "hf" | "modelscope":
            repository, _, revision = f"{parts.netloc}{parts.path}".partition("@")
            if _REPOSITORY.fullmatch(repository) and (revision or "@" not in url):
                return Reference(parts.scheme, repository, "", revision or None)
    raise Misconfigured(f"--from {url!r} is none of {FORMS}")


def open_source(url: str, connections: int) -> Source:
    """Make the adapter for a URL; `connections` is how many reads there may be at once. Raises Misconfigured."""
    reference = parse(url)
    match reference.scheme:
        case "file":
            from serving.weights.sources.local import LocalSource  # noqa: PLC0415  # only what is used is loaded

            return LocalSource(url, reference)
        case "s3":
            from serving.weights.sources.s3 import S3Source  # noqa: PLC0415

            return S3Source(url, reference, connections)
        case "hf":
            from serving.weights.sources.hf import HuggingFaceSource  # noqa: PLC0415

            return HuggingFaceSource(url, reference)
        case _:
            from serving.weights.sources.modelscope import ModelScopeSource  # noqa: PLC0415

            return ModelScopeSource(url, reference)


def library(name: str, package: str) -> Any:  # noqa: ANN401  # a module that may not be installed
    """Import an optional client library. Raises Misconfigured with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise Misconfigured(
            f"this source needs {package}: pip install {package} (it is in the extra `weights` of pyproject.toml)"
        ) from exc


def window(pieces: Iterator[bytes], skip: int, take: int) -> Iterator[bytes]:
    """Bytes [skip, skip + take) of a stream: what a range is, from a server that ignores ranges and sends it all."""
    for piece in pieces:
        part = piece[skip : skip + take]
        skip = max(0, skip - len(piece))
        take -= len(part)
        if part:
            yield part
        if take <= 0:
            return
