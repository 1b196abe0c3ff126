"""What has been found out about pictures by their content: one that comes again is not looked into again."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.images.inspect import ImageInfo

Key = tuple[bytes, int]
"""The digest of the bytes, and the pixel budget, on which a refusal may depend."""


class KnownPictures:
    """The latest of what `inspect` said and did not refuse; for several threads."""

    def __init__(self, most: int) -> None:
        """`most` pictures are kept, some 300 bytes each."""
        self._most = most
        self._infos: dict[Key, ImageInfo] = {}
        self._lock = Lock()

    def get(self, key: Key) -> ImageInfo | None:
        """What is known, and is now the latest."""
        with self._lock:
            if (info := self._infos.pop(key, None)) is not None:
                self._infos[key] = info
            return info

    def put(self, key: Key, info: ImageInfo) -> None:
        """Keep it, in place of the one not asked for the longest."""
        with self._lock:
            self._infos[key] = info
            if len(self._infos) > self._most:
                del self._infos[next(iter(self._infos))]
