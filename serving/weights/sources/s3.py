"""S3 and what speaks its protocol (Volcengine TOS, MinIO, OSS, COS), through botocore.

botocore is AWS's own client, and its credential chain is the standard one: environment, shared profile, SSO, web
identity (IRSA), pod identity, container and instance roles. Another service is chosen as everywhere, by
AWS_ENDPOINT_URL_S3, AWS_REGION and AWS_PROFILE. Every read names the ETag of the listing, so parts of two versions of
an object never mix.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from serving.weights.errors import Changed, Denied, FetchError, Misconfigured, NotThere, Unreachable
from serving.weights.manifest import Entry
from serving.weights.sources import CONNECT_TIMEOUT_S, MAX_FILES, PIECE_BYTES, READ_TIMEOUT_S, Listing, library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.weights.sources import Reference

_NOT_THERE = {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403", "401"}
_CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"}
_CREDENTIALS = "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role that may list and get"


class S3Source:
    """Implements Source for `s3://BUCKET/PREFIX`."""

    pinned = False
    reads_own_manifest = True

    def __init__(self, url: str, reference: Reference, connections: int) -> None:
        self.url = url
        self._bucket, self._prefix = reference.place, f"{reference.path}/"
        self._exceptions = library("botocore.exceptions", "botocore")
        self._http_errors = library("botocore.httpsession", "botocore").HTTPClientError
        config = library("botocore.config", "botocore").Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=max(connections, 1),
            retries={"mode": "standard", "max_attempts": 4},
            # Checksums of AWS's own making, which other services do not send; SHA-256 is compared here anyway.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        with self._translated(url):
            session = library("botocore.session", "botocore").get_session()
            # botocore itself reads AWS_DEFAULT_REGION only, and other services refuse a signature for another region.
            self._client = session.create_client("s3", region_name=os.environ.get("AWS_REGION") or None, config=config)

    def listing(self) -> Listing:
        """Every object under the prefix; the ETag is its version."""
        entries: list[Entry] = []
        with self._translated(self.url):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for item in page.get("Contents", ()):
                    name = item["Key"].removeprefix(self._prefix)
                    if name and not name.endswith("/"):  # what consoles put down for a folder
                        entries.append(Entry(name, item["Size"], None, item["ETag"]))
                if len(entries) > MAX_FILES:
                    raise NotThere(f"{self.url} holds more than {MAX_FILES:,} files: give the prefix of one checkpoint")
        return Listing(tuple(entries), None)

    @contextmanager
    def read(self, entry: Entry, start: int, stop: int) -> Iterator[Iterator[bytes]]:
        """Stream [start, stop) of an object."""
        with self._translated(f"{self.url}/{entry.name}"):
            reply = self._client.get_object(
                Bucket=self._bucket,
                Key=self._prefix + entry.name,
                Range=f"bytes={start}-{stop - 1}",
                IfMatch=entry.version,
            )
            if reply["ContentLength"] != stop - start or reply["ETag"] != entry.version:
                raise Changed(f"{entry.name} has changed since it was listed: run the same command again")
            body = reply["Body"]
            try:
                yield body.iter_chunks(PIECE_BYTES)
            finally:
                body.close()

    def _translated(self, what: str) -> Any:  # noqa: ANN401  # a context manager
        return _translated(what, self._exceptions, self._http_errors)


@contextmanager
def _translated(what: str, exceptions: Any, http_errors: type[Exception]) -> Iterator[None]:  # noqa: ANN401  # modules
    """Turn botocore's errors into ours. Their texts stay behind: they may hold parts of a request."""
    try:
        yield
    except FetchError:
        raise
    except exceptions.ClientError as exc:
        code = str(exc.response.get("Error", {}).get("Code", "unknown"))
        raise _meaning(code, what) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError):
        raise Denied(f"no credentials for {what}: {_CREDENTIALS}") from None
    except (http_errors, exceptions.ConnectionError, exceptions.IncompleteReadError) as exc:
        raise Unreachable(
            f"{what}: {type(exc).__name__}; is the service reachable, is AWS_ENDPOINT_URL_S3 right?"
        ) from None
    except exceptions.BotoCoreError as exc:
        raise Misconfigured(
            f"{what}: {type(exc).__name__}; look at AWS_REGION, AWS_PROFILE and ~/.aws/config"
        ) from None


def _meaning(code: str, what: str) -> FetchError:
    if code in _NOT_THERE:
        return NotThere(f"{what} is not there ({code}): look at the bucket's name and the prefix")
    if code in _DENIED:
        return Denied(f"{what} may not be read ({code}): {_CREDENTIALS}")
    if code in _CHANGED:
        return Changed(f"{what} has changed since it was listed ({code}): run the same command again")
    return Unreachable(f"{what}: the service answers {code}")
