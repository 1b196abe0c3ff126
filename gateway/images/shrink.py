"""Brings a picture to the pixel budget, in the plain form the engine is given. CPU-bound and synchronous.

One pass: decoded at a fraction where the format can, 8 bits, alpha onto white, resampled, converted to sRGB, turned
upright, encoded without metadata. Refuses to enlarge: what the engine needs more than it gets, it interpolates itself.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyvips

from gateway.images.layout import jpeg_layout, png_is_clean
from gateway.images.loaders import open_picture, refusing_corrupt
from gateway.images.refused import ImageRefused
from gateway.images.sniff import Format

if TYPE_CHECKING:
    from gateway.images.inspect import ImageInfo

GRID = 32
"""Pixels per side of what becomes one token: patch 16 x merge 2 (Qwen3-VL's vision config)."""
_JPEG_QUALITY = 90
_JPEG_SHRINKS = (8, 4, 2)
# What shrink-on-load leaves for the resampler: with less, the decoders' own coarser scaling shows in the result.
_JPEG_LEFT_TO_RESAMPLE = 1.5
_WEBP_LEFT_TO_RESAMPLE = 2.0
_MAX_JPEG_SCANS = 100
"""A progressive JPEG has about 10. Each scan is a pass over all coefficients: a small file could cost minutes."""
_CLEAN_BYTES_PER_PIXEL = 4
_CLEAN_HEADER_BYTES = 4096
_WHITE = 255
_SIDEWAYS = 5  # EXIF orientations from here on swap width and height


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as the engine is sent it. Sizes in pixels."""

    data: bytes
    media_type: str
    """`image/jpeg` or `image/png`; what `data` really is."""
    width: int
    height: int
    encode_s: float = 0.0
    """Seconds it took to encode the pixels; 0 where the bytes were handed on."""

    @property
    def tokens(self) -> int:
        """Vision tokens the engine makes of it, before its own minimum (`shortest_edge`) for tiny pictures."""
        return _cells(self.width) * _cells(self.height)


def target_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """The size that a `width` x `height` picture is brought to: the arithmetic of Qwen's smart_resize, factor 32.

    A picture that fits `max_pixels` (at least 1024), as it is and rounded to the grid, keeps its size: the engine
    rounds it, and one resampling is better than two. A larger one gets the largest grid size below the budget with its
    aspect ratio, which the engine then leaves as it is. Never larger than the source on either side, and never more
    than `max_pixels` after the engine's rounding: where an extreme ratio cannot have both, the longer side gives.
    """
    if width < 1 or height < 1 or max_pixels < GRID * GRID:
        message = f"sides must be at least 1 and the budget at least {GRID * GRID}, got {width}x{height}, {max_pixels}"
        raise ValueError(message)
    max_cells = max_pixels // (GRID * GRID)
    if width * height <= max_pixels and _cells(width) * _cells(height) <= max_cells:
        return width, height
    # The same floating point as transformers, so that the engine's own rounding finds nothing to do.
    # At least 1, as a picture may be within the budget and only its rounding not.
    beta = max(1.0, math.sqrt(width * height / max_pixels))
    columns = min(max_cells, max(1, math.floor(width / beta / GRID)))
    rows = min(max_cells, max(1, math.floor(height / beta / GRID)))
    return min(width, columns * GRID), min(height, rows * GRID)


def shrink(data: bytes, info: ImageInfo, *, max_pixels: int) -> Encoded:
    """`data`, which `inspect` described as `info`, within `max_pixels` (pixels, on the 32-px grid as target_size says).

    Already small and clean (8-bit JPEG or PNG, no alpha, no rotation, no metadata, nothing appended): the very same
    object back, after a decode that proves it whole. Otherwise JPEG at quality 90 without chroma subsampling (coloured
    text on a coloured ground is what 4:2:0 destroys), or PNG for drawings and screenshots that keep their size: there
    the exact pixels are cheaper than a JPEG of them. Greyscale stays greyscale, as that is a third of the bytes.

    Raises ImageRefused(`invalid_image`) for a file that is corrupt behind its header. Runs in one thread and releases
    the GIL; call it from a pool.
    """
    width, height = target_size(info.width, info.height, max_pixels)
    resized = (width, height) != (info.width, info.height)
    if info.format is Format.JPEG and info.several_passes and jpeg_layout(data).scans > _MAX_JPEG_SCANS:
        raise ImageRefused(
            "invalid_image", f"the JPEG has more than {_MAX_JPEG_SCANS} scans: save it again as baseline"
        )
    with refusing_corrupt(info.format):
        if not resized and _is_clean(data, info):
            open_picture(data, info.format).avg()
            return Encoded(data, f"image/{info.format.lower()}", width, height)
        # Into memory (at most the budget's pixels): libvips is lazy, and the encoder would be timed with the decoder.
        picture = _upright(_to_srgb(_decode(data, info, width, height)).copy_memory())
        begun = time.perf_counter()
        if not resized and _is_drawing(data, info):
            encoded, media_type = picture.pngsave_buffer(compression=1, keep=0), "image/png"
        else:
            encoded = picture.jpegsave_buffer(Q=_JPEG_QUALITY, subsample_mode="off", keep=0)
            media_type = "image/jpeg"
    return Encoded(encoded, media_type, picture.width, picture.height, time.perf_counter() - begun)


def jpeg_step(ratio: float) -> int:
    """At which fraction (1, 2, 4, 8) a JPEG is decoded that becomes `ratio` times smaller."""
    return next((step for step in _JPEG_SHRINKS if ratio >= step * _JPEG_LEFT_TO_RESAMPLE), 1)


def webp_scale(ratio: float) -> float:
    """At which fraction a WebP is decoded that becomes `ratio` times smaller."""
    return min(1.0, _WEBP_LEFT_TO_RESAMPLE / ratio)


def _cells(side: int) -> int:
    """Grid cells along a side. Rounds half to even, as smart_resize does by Python's round()."""
    return max(1, round(side / GRID))


def _is_clean(data: bytes, info: ImageInfo) -> bool:
    """Whether `data` may be handed on as it is. A file far larger than its pixels is carrying something else."""
    if info.orientation != 1 or info.has_alpha or info.frames != 1:
        return False
    if len(data) > info.width * info.height * _CLEAN_BYTES_PER_PIXEL + _CLEAN_HEADER_BYTES:
        return False
    if info.format is Format.JPEG:
        return jpeg_layout(data).clean
    return info.format is Format.PNG and png_is_clean(data)


def _is_drawing(data: bytes, info: ImageInfo) -> bool:
    """Few bytes a pixel in a lossless format: flat colours, which PNG keeps small and JPEG would smear."""
    return info.format in {Format.PNG, Format.GIF} and len(data) <= info.width * info.height


def _decode(data: bytes, info: ImageInfo, width: int, height: int) -> pyvips.Image:
    """8 bits a sample, no alpha, resampled; still turned as stored and in the file's own colours."""
    if info.orientation >= _SIDEWAYS:
        stored_width, target_width, target_height = info.height, height, width
        stored_height = info.width
    else:
        stored_width, stored_height, target_width, target_height = info.width, info.height, width, height
    ratio = min(stored_width / target_width, stored_height / target_height)
    picture = open_picture(
        data,
        info.format,
        jpeg_shrink=jpeg_step(ratio),
        webp_scale=webp_scale(ratio),
    )
    if picture.format == "ushort":
        grey = picture.interpretation == "grey16"
        picture = picture.cast("uchar", shift=True).copy(interpretation="b-w" if grey else "srgb")
    if picture.hasalpha():
        # Before resampling: mixing with white first is the same as resampling premultiplied colours.
        picture = picture.flatten(background=_WHITE)
    if (picture.width, picture.height) != (target_width, target_height):
        picture = picture.resize(target_width / picture.width, vscale=target_height / picture.height)
    return picture


def _to_srgb(picture: pyvips.Image) -> pyvips.Image:
    """Through the embedded profile if there is one that works; a broken profile is ignored, as viewers do."""
    cmyk = picture.interpretation == "cmyk"
    if picture.get_typeof("icc-profile-data"):
        try:
            return picture.icc_transform("srgb", embedded=True, intent="relative")
        except (pyvips.Error, UnicodeDecodeError):
            pyvips.vips_lib.vips_error_clear()
            picture = picture.copy()
            picture.remove("icc-profile-data")
    if cmyk:
        return picture.icc_transform("srgb", input_profile="cmyk", intent="relative")
    return picture


def _upright(picture: pyvips.Image) -> pyvips.Image:
    """Turned as EXIF says; `picture` is in memory: a turn reads columns, the decoder only gives rows."""
    if not picture.get_typeof("orientation") or picture.get("orientation") == 1:
        return picture
    return picture.autorot()
