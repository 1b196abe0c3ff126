"""A look at the header: what the picture is and how large, and whether it may be decoded at all. Decodes no pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.images.loaders import open_picture, refusing_corrupt
from gateway.images.price import price
from gateway.images.refused import ImageRefused
from gateway.images.sniff import Format, sniff

if TYPE_CHECKING:
    import pyvips

MAX_ASPECT_RATIO = 200
"""Qwen's smart_resize raises above this (transformers, models/qwen2_vl/image_processing_qwen2_vl.py)."""
MAX_FRAMES = 1_000
"""Only the first is shown to the model; more than this is no picture but an attempt on the header parser."""
_SAMPLES = frozenset({"uchar", "ushort"})
_BANDS = {"b-w": (1, 2), "grey16": (1, 2), "rgb": (3, 4), "srgb": (3, 4), "rgb16": (3, 4), "cmyk": (4, 5)}
MAX_DECODE_BYTES = 80 * 1024 * 1024
"""Whatever the pixel cap: a picture whose decoder would hold more is refused. AVIF meets it first, near 4 megapixels;
progressive JPEG at 12, a JPEG as cameras write it at none of the sizes that are accepted."""
_SIDEWAYS = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header says. Sizes in pixels, as the viewer sees the picture: after `orientation` has been applied."""

    format: Format
    width: int
    height: int
    frames: int
    """Frames or pages in the file; only the first is used."""
    orientation: int
    """EXIF orientation, 1 to 8; 1 is upright."""
    has_alpha: bool
    several_passes: bool
    """A progressive JPEG or an interlaced PNG: cannot be decoded row by row."""
    decode_bytes: int
    """At most so much memory is held at once to decode and shrink it (price.py)."""


def inspect(
    data: bytes, *, max_pixels: int, budget_pixels: int | None = None, max_decode_bytes: int = MAX_DECODE_BYTES
) -> ImageInfo:
    """What `data` is, if it may be decoded.

    `max_pixels` caps the *source* and so the time of decoding, `max_decode_bytes` the memory. `budget_pixels` is what
    `shrink` will be told: the smaller, the less is decoded of JPEG and WebP; None reckons with all of it. Raises
    ImageRefused: `unsupported_image`, `invalid_image`, `image_too_large`, `too_many_frames`, `aspect_ratio`. Takes
    a fraction of a millisecond whatever the picture's size; hostile headers (half a million GIF frames) cost tens, so
    it belongs into the thread pool together with `shrink`.
    """
    fmt = sniff(data)
    with refusing_corrupt(fmt):
        picture = open_picture(data, fmt)
        orientation = _field(picture, "orientation", 1)
        frames = _field(picture, "n-pages", 1)
        several_passes = bool(_field(picture, "interlaced", 0) or _field(picture, "jpeg-multiscan", 0))
    pixels = picture.width * picture.height
    if pixels > max_pixels:
        message = (
            f"the picture is {picture.width}x{picture.height}, {pixels} pixels; at most {max_pixels} are accepted: "
            "send a smaller one, the model sees far fewer pixels anyway"
        )
        raise ImageRefused("image_too_large", message)
    if frames > MAX_FRAMES:
        raise ImageRefused("too_many_frames", f"the picture has {frames} frames, at most {MAX_FRAMES} are accepted")
    longer, shorter = max(picture.width, picture.height), min(picture.width, picture.height)
    if longer > MAX_ASPECT_RATIO * shorter:
        message = (
            f"the picture is {picture.width}x{picture.height}; the model takes sides of at most "
            f"{MAX_ASPECT_RATIO} to 1: crop it"
        )
        raise ImageRefused("aspect_ratio", message)
    if picture.bands not in _BANDS.get(picture.interpretation, ()) or picture.format not in _SAMPLES:
        message = f"this {fmt} has an unusual pixel layout ({picture.interpretation}, {picture.format}): send 8-bit RGB"
        raise ImageRefused("unsupported_image", message)
    decode_bytes = price(picture, fmt, data, several_passes=several_passes, budget_pixels=budget_pixels)
    if decode_bytes > max_decode_bytes:
        message = (
            f"decoding this {fmt} of {picture.width}x{picture.height} takes up to {decode_bytes >> 20} MiB of memory, "
            f"at most {max_decode_bytes >> 20} are allowed (the service's GATEWAY_IMAGE_MAX_DECODE_BYTES): "
            "send a smaller one, or a baseline JPEG"
        )
        raise ImageRefused("image_too_large", message)
    sideways = orientation in _SIDEWAYS
    return ImageInfo(
        format=fmt,
        width=picture.height if sideways else picture.width,
        height=picture.width if sideways else picture.height,
        frames=frames,
        orientation=orientation if 1 <= orientation <= 8 else 1,  # noqa: PLR2004 - EXIF 2.32, 4.6.4 A
        has_alpha=bool(picture.hasalpha()),
        several_passes=several_passes,
        decode_bytes=decode_bytes,
    )


def _field(picture: pyvips.Image, name: str, default: int) -> int:
    return int(picture.get(name)) if picture.get_typeof(name) else default
