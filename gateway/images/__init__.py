"""Pictures: fetched safely, looked at before they are decoded, brought to the pixel budget, named by their content.

The order of the steps is the caller's: bytes (`decode_data_url` or `ContentCache.get`) → `digest` → `inspect` →
`shrink`. Every refusal is an ImageRefused. `inspect` and `shrink` are synchronous; `shrink` is CPU-bound and belongs
into a thread pool, whose size is the only parallelism (libvips runs one thread per call), behind a `MemoryGate`.
"""

from gateway.images.content import ContentCache
from gateway.images.data_url import decode_data_url
from gateway.images.digest import digest, tenant_uuid
from gateway.images.fetch import ImageFetcher
from gateway.images.gate import MemoryGate
from gateway.images.inspect import ImageInfo, inspect
from gateway.images.known import KnownPictures
from gateway.images.priority import let_decoders_yield
from gateway.images.refused import ImageRefused
from gateway.images.shrink import Encoded, shrink, target_size

__all__ = [
    "ContentCache",
    "Encoded",
    "ImageFetcher",
    "ImageInfo",
    "ImageRefused",
    "KnownPictures",
    "MemoryGate",
    "decode_data_url",
    "digest",
    "inspect",
    "let_decoders_yield",
    "shrink",
    "target_size",
    "tenant_uuid",
]
