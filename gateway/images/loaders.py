"""libvips, locked down: the only door to a decoder. Opens headers; decodes nothing until pixels are asked for.

libvips picks a loader by content when asked to, and some of its loaders (SVG, PDF, ImageMagick, RAW, matrices from
CSV) parse languages or read files. So all of them are blocked in the library itself for the whole process, and the
six that pictures need are let through again, from memory only. Savers alike: JPEG and PNG to memory.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import pyvips

from gateway.images.bmp import open_bmp
from gateway.images.quiet import quieten
from gateway.images.refused import ImageRefused
from gateway.images.sniff import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOADERS: Final = MappingProxyType(
    {
        Format.JPEG: ("VipsForeignLoadJpegSource", pyvips.Image.jpegload_source),
        Format.PNG: ("VipsForeignLoadPngSource", pyvips.Image.pngload_source),
        Format.WEBP: ("VipsForeignLoadWebpSource", pyvips.Image.webpload_source),
        Format.GIF: ("VipsForeignLoadNsgifSource", pyvips.Image.gifload_source),
        Format.TIFF: ("VipsForeignLoadTiffSource", pyvips.Image.tiffload_source),
        Format.AVIF: ("VipsForeignLoadHeifSource", pyvips.Image.heifload_source),
    }
)
_SAVERS: Final = ("VipsForeignSaveJpegBuffer", "VipsForeignSavePngBuffer")


def _lock_down() -> None:
    pyvips.block_untrusted_set(True)
    for everything in ("VipsForeignLoad", "VipsForeignSave"):
        pyvips.operation_block_set(everything, True)
    for name in (*(loader for loader, _ in _LOADERS.values()), *_SAVERS):
        pyvips.operation_block_set(name, False)
    # One thread per call: the caller's pool is the only parallelism, so that its size means something.
    pyvips.concurrency_set(1)
    # No operation is ever repeated on the same image object; the cache would only keep pictures alive.
    pyvips.cache_set_max(0)
    pyvips.cache_set_max_mem(0)
    pyvips.cache_set_max_files(0)


_lock_down()
quieten()


def open_picture(data: bytes, fmt: Format, *, jpeg_shrink: int = 1, webp_scale: float = 1.0) -> pyvips.Image:
    """The first frame of `data` as a lazy image whose header has been read and whose pixels have not.

    The measure taken here is the one the decoder will use: the same parser reads both, so there is no second opinion
    about the size for a lying header to exploit. `jpeg_shrink` 1, 2, 4 or 8 decodes a JPEG at that fraction in the DCT
    domain, `webp_scale` in (0, 1] lets libwebp scale while it decodes; other formats ignore both.

    Truncated files fail (`fail_on="error"`), while decoding at the latest. Mere warnings, which cameras cause, do not.
    Call inside `refusing_corrupt`, and keep `data` alive as long as the image: it is read in place.
    """
    if fmt is Format.BMP:
        return open_bmp(data)
    options: dict[str, object] = {"access": "sequential", "fail_on": "error"}
    if fmt is Format.JPEG:
        options["shrink"] = jpeg_shrink
    elif fmt is Format.WEBP:
        options["scale"] = webp_scale
    _, load = _LOADERS[fmt]
    # A source and not a buffer: the buffer loaders copy the whole file each time, also for its header alone.
    return load(pyvips.Source.new_from_memory(data), **options)


@contextmanager
def refusing_corrupt(fmt: Format) -> Iterator[None]:
    """Turns what libvips says about a bad file into ImageRefused(`invalid_image`).

    libvips' own text is not passed on: its error buffer is one for the process, so it may hold another request's.
    """
    try:
        yield
    except (pyvips.Error, UnicodeDecodeError) as exc:
        # Reading the buffer is what raises UnicodeDecodeError (a file's bytes quoted in it), and leaves it uncleared:
        # without this, every later error of the process would raise the same.
        pyvips.vips_lib.vips_error_clear()
        message = f"the {fmt} picture is corrupt or cut short: check that it opens, and send it again"
        raise ImageRefused("invalid_image", message) from exc
