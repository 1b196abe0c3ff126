"""What a picture costs to decode and shrink: an upper bound of the memory, from its header alone.

Measured as growth of a process' peak; `tests/integration/test_decode_memory.py` measures it again for the heaviest
layouts of every format. A bound and not a guess: what decoders hold together must stay below what they were given.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.images.layout import tiff_streams
from gateway.images.shrink import jpeg_step, target_size, webp_scale
from gateway.images.sniff import Format

if TYPE_CHECKING:
    import pyvips

_MIB = 1024 * 1024
_SAMPLE_BYTES = {"uchar": 1, "ushort": 2}
# libvips reads row by row, but keeps this many as decoded and this many as they go into the resampler, 8 bits and
# without alpha (12 to 48 MP, widths of 1,000 to 20,000: at most 750 and 1,100).
_ROWS_DECODED = 900
_ROWS_RESAMPLED = 1200
_FIXED_BYTES = 4 * _MIB
"""Tables, colour profiles, what the allocator rounds up."""
_CMYK_BYTES = 4 * _MIB
"""The profile that turns it into sRGB, as a table."""
_COEFFICIENT_BYTES = 2
"""Of a progressive JPEG all DCT coefficients are kept, in each band as many as pixels when chroma is not subsampled."""
_OUTPUT_BYTES = 6
"""For each pixel of the budget: it is in memory before it is encoded, and once more when it is turned."""
# Bytes a pixel of decoders that hold the frame as a whole.
_ARGB = 4
_GIF = 5  # the canvas in RGBA, and the frame's indices
_AVIF, _AVIF_ALPHA = 19, 4  # AV1 reference frames, planes in YUV and RGB, interleaved; for samples of 8 bits


def price(
    picture: pyvips.Image, fmt: Format, data: bytes, *, several_passes: bool, budget_pixels: int | None = None
) -> int:
    """Bytes. `picture` has a header and no pixels yet; see `inspect` for the rest."""
    width, height, bands, alpha = int(picture.width), int(picture.height), int(picture.bands), bool(picture.hasalpha())
    sample_bytes = _SAMPLE_BYTES[picture.format]
    pixels = width * height
    ratio = _ratio(width, height, budget_pixels)
    step = jpeg_step(ratio) if fmt is Format.JPEG else 1
    row_pixels, rows = math.ceil(width / step), math.ceil(height / step)
    as_decoded = min(_ROWS_DECODED, rows) * row_pixels * bands * sample_bytes
    whole = pixels * bands * sample_bytes
    match fmt:
        case Format.JPEG:
            decoder = as_decoded + (pixels * bands * _COEFFICIENT_BYTES if several_passes else 0)
        case Format.PNG:
            decoder = whole if several_passes else as_decoded
        case Format.WEBP:
            decoder = pixels * _ARGB + math.ceil(pixels * _ARGB * webp_scale(ratio) ** 2)
        case Format.GIF:
            decoder = pixels * _GIF
        case Format.AVIF:
            decoder = pixels * sample_bytes * (_AVIF + _AVIF_ALPHA * alpha)
        case Format.TIFF:
            decoder = as_decoded + (0 if tiff_streams(data) else whole)
        case Format.BMP:
            decoder = as_decoded
    plain_bands = max(3, bands - alpha) if fmt is Format.GIF else bands - alpha
    resampler = min(_ROWS_RESAMPLED, rows) * row_pixels * plain_bands
    fixed = _FIXED_BYTES + _CMYK_BYTES * (picture.interpretation == "cmyk")
    bytes_in_all: int = decoder + resampler + _OUTPUT_BYTES * min(pixels, budget_pixels or 0) + fixed
    return bytes_in_all


def _ratio(width: int, height: int, budget_pixels: int | None) -> float:
    """How many times smaller the picture becomes; 1 when that is not known."""
    if budget_pixels is None:
        return 1.0
    target_width, target_height = target_size(width, height, budget_pixels)
    return min(width / target_width, height / target_height)
