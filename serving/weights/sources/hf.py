"""Hugging Face, through huggingface_hub: its API for the listing, its URLs, headers and HTTP session for the bytes.

The library's own downloader is not used: it cannot take a range, and its resuming and checks differ between its two
transports. HF_ENDPOINT (a mirror), HF_TOKEN and the token of `hf auth login` work as everywhere. A branch or a tag is
resolved to its commit once, and every byte is read from that commit.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from serving.weights.errors import Denied, FetchError, NotThere, Unreachable
from serving.weights.manifest import Checksum, Entry
from serving.weights.sources import CONNECT_TIMEOUT_S, PIECE_BYTES, READ_TIMEOUT_S, Listing, library, window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.weights.sources import Reference

_NOT_FOUND, _PARTIAL, _DENIED = 404, 206, {401, 403}


class HuggingFaceSource:
    """Implements Source for `hf://OWNER/NAME[@REVISION]`."""

    # The hub's metadata say what each file is; a file in the repository says it no better.
    reads_own_manifest = False

    def __init__(self, url: str, reference: Reference) -> None:
        self.url, self.pinned = url, reference.pinned
        self._repository, self._revision = reference.place, reference.revision
        self._hub = library("huggingface_hub", "huggingface_hub")
        self._utils = library("huggingface_hub.utils", "huggingface_hub")
        self._errors = library("huggingface_hub.errors", "huggingface_hub")
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._commit = ""

    def listing(self) -> Listing:
        """Every file of the commit; SHA-256 of LFS files, git's blob id of the others."""
        with self._translated():
            info = self._hub.HfApi(endpoint=self._endpoint).model_info(
                self._repository, revision=self._revision, files_metadata=True, timeout=READ_TIMEOUT_S
            )
        self._commit = info.sha
        return Listing(tuple(_entry(sibling, info.sha) for sibling in info.siblings or ()), info.sha)

    @contextmanager
    def read(self, entry: Entry, start: int, stop: int) -> Iterator[Iterator[bytes]]:
        """Stream [start, stop) of a file; redirects to the CDN are followed, without the token."""
        url = self._hub.hf_hub_url(self._repository, entry.name, revision=self._commit, endpoint=self._endpoint)
        # Compressed bytes would make ranges mean something else.
        headers = {**self._utils.build_hf_headers(), "Accept-Encoding": "identity"}
        if (start, stop) != (0, entry.size):
            headers["Range"] = f"bytes={start}-{stop - 1}"
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S, READ_TIMEOUT_S, READ_TIMEOUT_S)
        with (
            self._translated(),
            self._utils.get_session().stream("GET", url, headers=headers, timeout=timeout) as reply,
        ):
            self._utils.hf_raise_for_status(reply)
            skip = 0 if reply.status_code == _PARTIAL else start
            yield window(reply.iter_bytes(PIECE_BYTES), skip, stop - start)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the library's errors into ours. Their texts stay behind: they may hold signed URLs."""
        try:
            yield
        except FetchError:
            raise
        except (self._errors.GatedRepoError, self._errors.RepositoryNotFoundError):
            # The hub answers alike for what is not there and for what may not be seen.
            raise Denied(
                f"{self.url} does not exist, is private or is gated: look at the name, accept the model's terms on its "
                "page, and set HF_TOKEN"
            ) from None
        except self._errors.HfHubHTTPError as exc:
            raise _meaning(exc.response.status_code, self.url) from None
        except self._errors.OfflineModeIsEnabled:
            raise Unreachable(f"{self.url}: HF_HUB_OFFLINE is set; unset it, or fetch from s3:// or file://") from None
        except self._errors.HTTPError as exc:
            raise Unreachable(
                f"{self.url}: {type(exc).__name__}; is the hub reachable? HF_ENDPOINT chooses a mirror"
            ) from None


def _entry(sibling: Any, commit: str) -> Entry:  # noqa: ANN401  # the library's RepoSibling
    checksum = None
    if sibling.lfs is not None:
        checksum = Checksum("sha256", sibling.lfs.sha256)
    elif sibling.blob_id:
        checksum = Checksum("git-sha1", sibling.blob_id)
    return Entry(sibling.rfilename, sibling.size or 0, checksum, commit)


def _meaning(status: int, what: str) -> FetchError:
    if status == _NOT_FOUND:
        return NotThere(f"{what} is not there (404): look at the name and the revision")
    if status in _DENIED:
        return Denied(f"{what} may not be read ({status}): set HF_TOKEN to a token that may read it")
    return Unreachable(f"{what}: the hub answers {status}")
