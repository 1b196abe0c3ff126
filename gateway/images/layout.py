"""The outer structure of JPEG, PNG and TIFF files: markers, chunks, tags. Decodes nothing.

Says whether a JPEG or PNG is *clean*, and whether a TIFF can be read row by row.

Clean is a list of what may be there, not of what may not: a file holding anything unknown (metadata, thumbnails,
profiles, comments, bytes before or after the picture) is encoded anew instead of being handed on.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_SOF_BASELINE, _SOF_PROGRESSIVE = 0xC0, 0xC2
_SOI, _EOI, _SOS, _APP0 = 0xD8, 0xD9, 0xDA, 0xE0
_DQT, _DHT, _DRI = 0xDB, 0xC4, 0xDD
_JFIF_WITHOUT_THUMBNAIL_BYTES = 16
# In entropy-coded data 0xFF is followed by 0 (stuffing) or a restart marker; anything else is the next marker. The
# pattern starts with a literal, which `re` looks for by memchr.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_WINDOW_BYTES = 256 * 1024
"""`re` holds the GIL, and with it up the event loop, for as long as one search takes: so none is longer than this."""

_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNK_OVERHEAD_BYTES = 12
_PNG_PICTURE_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# About colour and size, and of a fixed size themselves (cHRM has the most); neither libvips nor Pillow act on them.
_PNG_HARMLESS_CHUNKS = frozenset({b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"sBIT"})
_PNG_HARMLESS_MAX_BYTES = 32
_PNG_CLEAN_KINDS = frozenset({(8, 0), (8, 2), (8, 3)})  # (bit depth, colour type): grey, RGB, palette

_TIFF_PLANES, _TIFF_TOGETHER = 284, 1
_TIFF_TILES = frozenset({322, 323, 324, 325})


@dataclass(frozen=True, slots=True)
class JpegLayout:
    """Of the first image in the file. `scans` counts SOS markers; `clean` as the module says."""

    scans: int
    clean: bool


def jpeg_layout(data: bytes) -> JpegLayout:
    """Walks the markers from SOI to the first EOI. A broken walk is unclean, not an error: the decoder will judge it.

    Source: ITU-T T.81 annex B. Clean: one 8-bit baseline or progressive frame of 1 or 3 components, plain JFIF.
    """
    scans, frames, clean, at = 0, 0, data[:2] == bytes((0xFF, _SOI)), 2
    while match := _next_marker(data, at):
        # Between segments there may be nothing but 0xFF, as often as one likes.
        clean = clean and (scans > 0 or not data[at : match.start()].strip(b"\xff"))
        marker = match[1][0]
        at = match.end()
        if marker == _EOI:
            return JpegLayout(scans, clean and scans > 0 and frames == 1 and at == len(data))
        segment = data[at : at + 2]
        length = int.from_bytes(segment)
        clean = clean and length >= 2 and _segment_is_clean(marker, data[at + 2 : at + length], length)  # noqa: PLR2004
        scans += marker == _SOS
        frames += marker in {_SOF_BASELINE, _SOF_PROGRESSIVE}
        at += length
    return JpegLayout(scans, clean=False)


def _next_marker(data: bytes, at: int) -> re.Match[bytes] | None:
    for start in range(at, len(data), _WINDOW_BYTES):
        # A byte more than the window: a marker may begin with its last one.
        if match := _MARKER.search(data, start, start + _WINDOW_BYTES + 1):
            return match
    return None


def _segment_is_clean(marker: int, body: bytes, length: int) -> bool:
    if marker in {_SOF_BASELINE, _SOF_PROGRESSIVE}:
        # Precision, height, width, number of components.
        return len(body) > 5 and body[0] == 8 and body[5] in {1, 3}  # noqa: PLR2004
    if marker == _APP0:
        return length == _JFIF_WITHOUT_THUMBNAIL_BYTES and body.startswith(b"JFIF\x00")
    return marker in {_SOS, _DQT, _DHT, _DRI}


def png_is_clean(data: bytes) -> bool:
    """Whether the PNG holds an 8-bit grey, RGB or palette picture without transparency, and nothing else.

    Source: PNG (ISO/IEC 15948) 5.3 and 11. Checksums are left to the decoder.
    """
    if len(data) < _PNG_SIGNATURE_BYTES + _PNG_CHUNK_OVERHEAD_BYTES + 13:
        return False
    if (data[24], data[25]) not in _PNG_CLEAN_KINDS:
        return False
    at = _PNG_SIGNATURE_BYTES
    while at + _PNG_CHUNK_OVERHEAD_BYTES <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        harmless = kind in _PNG_HARMLESS_CHUNKS and length <= _PNG_HARMLESS_MAX_BYTES
        if not harmless and kind not in _PNG_PICTURE_CHUNKS:
            return False
        at += int(length) + _PNG_CHUNK_OVERHEAD_BYTES
        if kind == b"IEND":
            return at == len(data)
    return False


def tiff_streams(data: bytes) -> bool:
    """Whether the first picture of a TIFF can be read row by row: in strips, its bands together. False when in doubt.

    Source: TIFF 6.0, section 2. Tiles, bands apart and BigTIFF count as not, as their decoder holds more.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None:
        return False
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        tags = [struct.unpack_from(f"{order}H6xH2x", data, at + 2 + 12 * n) for n in range(count)]
    except struct.error:
        return False
    # All of them: whoever writes a tag twice does not choose which is believed.
    return not any(tag in _TIFF_TILES or (tag == _TIFF_PLANES and value != _TIFF_TOGETHER) for tag, value in tags)
