"""ModelScope, through modelscope-hub: the small client of the hub (requests, tqdm), not the `modelscope` framework.

Every file has a SHA-256 in its listing. MODELSCOPE_API_TOKEN and MODELSCOPE_ENDPOINT work as everywhere. The listing
names no commit, so a branch that moves while it is fetched is noticed by the checksums.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from serving.weights.errors import Denied, FetchError, NotThere, Unreachable
from serving.weights.manifest import Checksum, Entry
from serving.weights.sources import PIECE_BYTES, Listing, library, window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.weights.sources import Reference

_PARTIAL = 206
_DEFAULT_REVISION = "master"


class ModelScopeSource:
    """Implements Source for `modelscope://OWNER/NAME[@REVISION]`."""

    reads_own_manifest = False

    def __init__(self, url: str, reference: Reference) -> None:
        self.url, self.pinned = url, reference.pinned
        self._repository, self._revision = reference.place, reference.revision or _DEFAULT_REVISION
        self._errors = library("modelscope_hub.errors", "modelscope-hub")
        self._requests = library("requests", "modelscope-hub")
        self._api = library("modelscope_hub", "modelscope-hub").HubApi()

    def listing(self) -> Listing:
        """Every file of the revision, with its SHA-256."""
        with self._translated():
            files = self._api.list_repo_files(self._repository, "model", revision=self._revision)
        entries = tuple(
            Entry(
                item.path,
                item.size,
                Checksum("sha256", item.sha256.lower()) if item.sha256 else None,
                item.blob_id or self._revision,
            )
            for item in files
            if not item.is_dir
        )
        return Listing(entries, self._revision if self.pinned else None)

    @contextmanager
    def read(self, entry: Entry, start: int, stop: int) -> Iterator[Iterator[bytes]]:
        """Stream [start, stop) of a file."""
        headers = {"Accept-Encoding": "identity"}
        if (start, stop) != (0, entry.size):
            headers["Range"] = f"bytes={start}-{stop - 1}"
        with (
            self._translated(),
            self._api.legacy.download_stream(
                self._repository, "model", entry.name, revision=self._revision, headers=headers
            ) as reply,
        ):
            skip = 0 if reply.status_code == _PARTIAL else start
            yield window(reply.iter_content(PIECE_BYTES), skip, stop - start)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the library's errors into ours. Their texts stay behind: they may hold signed URLs."""
        try:
            yield
        except FetchError:
            raise
        except self._errors.NotExistError:
            raise NotThere(f"{self.url} is not there: look at the name and the revision") from None
        except (self._errors.AuthenticationError, self._errors.PermissionDeniedError):
            raise Denied(f"{self.url} may not be read: set MODELSCOPE_API_TOKEN to a token that may read it") from None
        except (self._errors.HubError, self._requests.RequestException) as exc:
            raise Unreachable(
                f"{self.url}: {type(exc).__name__}; is the hub reachable? MODELSCOPE_ENDPOINT chooses another"
            ) from None
