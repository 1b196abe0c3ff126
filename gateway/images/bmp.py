"""Uncompressed BMP → libvips image. libvips itself reads BMP only through ImageMagick, which must stay out of reach.

Covers what programs write today: BITMAPINFOHEADER and later, 8-bit palette, 24 and 32 bits. Refuses the rest (RLE,
1, 4 and 16 bits, OS/2 headers, embedded JPEG/PNG). Being uncompressed, a BMP cannot be a bomb: it is as
large as its pixels. Layout: Microsoft, "Bitmap Storage" and BITMAPV5HEADER.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pyvips

from gateway.images.refused import ImageRefused

_FILE_HEADER_BYTES = 14
_INFO_HEADER_BYTES = 40
_V4_HEADER_BYTES = 108
_PALETTE_ENTRIES = 256
_BI_RGB = 0
_BI_BITFIELDS = 3
_BGR_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF)
_ALPHA_MASK = 0xFF000000


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    top_down: bool
    bits: int
    pixels_at: int
    palette_at: int
    palette_entries: int
    has_alpha: bool

    @property
    def stride_bytes(self) -> int:
        """Bytes of a row: padded to 4."""
        return (self.width * self.bits // 8 + 3) // 4 * 4


def open_bmp(data: bytes) -> pyvips.Image:
    """An 8-bit sRGB image of 3 bands, or 4 where the file declares alpha; a view on `data`, no pixel is copied yet.

    Raises ImageRefused: `unsupported_image` for a kind not covered, `invalid_image` for one that is cut short.
    """
    header = _read_header(data)
    end = header.pixels_at + header.stride_bytes * header.height
    if end > len(data) or header.pixels_at < _FILE_HEADER_BYTES + _INFO_HEADER_BYTES:
        raise ImageRefused(
            "invalid_image", "the BMP picture is corrupt or cut short: check that it opens, and send it again"
        )
    row_bytes = header.width * header.bits // 8
    rows = pyvips.Image.new_from_memory(
        memoryview(data)[header.pixels_at : end], header.stride_bytes, header.height, 1, "uchar"
    ).crop(0, 0, row_bytes, header.height)
    if header.bits == 8:  # noqa: PLR2004
        picture = rows.maplut(_palette(data, header))
    else:
        pixels = rows.bandfold(factor=header.bits // 8)
        picture = pixels[2].bandjoin([pixels[1], pixels[0], *([pixels[3]] if header.has_alpha else [])])
    upright = picture if header.top_down else picture.flipver()
    return upright.copy(interpretation="srgb")


def _read_header(data: bytes) -> _Header:
    try:
        (pixels_at, header_bytes) = struct.unpack_from("<II", data, 10)
        if header_bytes < _INFO_HEADER_BYTES:
            raise _unsupported()
        width, height, _planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (palette_entries,) = struct.unpack_from("<I", data, 46)
        masks = struct.unpack_from("<IIII", data, 54) if compression == _BI_BITFIELDS else (*_BGR_MASKS, 0)
    except struct.error as exc:
        raise ImageRefused("invalid_image", "the BMP picture is cut short in its header: send it again") from exc
    # Before a V4 header the masks are three; what follows them is the palette or the pixels, not an alpha mask.
    alpha_mask = masks[3] if header_bytes >= _V4_HEADER_BYTES else 0
    readable = (compression == _BI_RGB and bits in {8, 24, 32}) or (compression == _BI_BITFIELDS and bits == 32)  # noqa: PLR2004
    if not readable or masks[:3] != _BGR_MASKS or alpha_mask not in {0, _ALPHA_MASK}:
        raise _unsupported()
    if width <= 0 or height == 0:
        raise ImageRefused("invalid_image", "the BMP picture has no pixels")
    return _Header(
        width=width,
        height=abs(height),
        top_down=height < 0,
        bits=bits,
        pixels_at=pixels_at,
        palette_at=_FILE_HEADER_BYTES + header_bytes,
        palette_entries=min(palette_entries or _PALETTE_ENTRIES, _PALETTE_ENTRIES),
        has_alpha=alpha_mask == _ALPHA_MASK,
    )


def _palette(data: bytes, header: _Header) -> pyvips.Image:
    """The palette as a 256x1 image of 3 bands; entries the file does not have are black."""
    entries = data[header.palette_at : header.palette_at + 4 * header.palette_entries]
    padded = entries.ljust(4 * _PALETTE_ENTRIES, b"\x00")
    rgb = bytes(padded[4 * entry + channel] for entry in range(_PALETTE_ENTRIES) for channel in (2, 1, 0))
    return pyvips.Image.new_from_memory(rgb, _PALETTE_ENTRIES, 1, 3, "uchar")


def _unsupported() -> ImageRefused:
    return ImageRefused(
        "unsupported_image", "this kind of BMP (compressed, or not 8, 24 or 32 bits) is not read: send PNG"
    )
