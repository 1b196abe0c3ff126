"""What a file is, by its first bytes. Believes neither the declared media type nor the name; decodes nothing.

Refuses to guess: a signature stands at its place or the file is unsupported, so a polyglot is what its first bytes say.
"""

from __future__ import annotations

from enum import StrEnum

from gateway.images.refused import ImageRefused


class Format(StrEnum):
    """The formats that are accepted; the value is how messages and metrics call them."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"
    AVIF = "AVIF"


_ACCEPTED = "send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
_SIGNATURES = (
    (b"\xff\xd8\xff", Format.JPEG),
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"GIF87a", Format.GIF),
    (b"GIF89a", Format.GIF),
    (b"BM", Format.BMP),
    (b"II*\x00", Format.TIFF),
    (b"MM\x00*", Format.TIFF),
    (b"II+\x00", Format.TIFF),  # BigTIFF
    (b"MM\x00+", Format.TIFF),
)
# Not pictures to us, but sent often enough (or as an attack) to be called by name.
_NAMED_REFUSALS = (
    (b"%pdf", "a PDF document; send its pages as pictures"),
    (b"<svg", "an SVG drawing; send it rendered as PNG"),
    (b"<?xml", "XML or an SVG drawing; send it rendered as PNG"),
    (b"<!doctype html", "a web page; send the URL of the picture itself"),
    (b"<html", "a web page; send the URL of the picture itself"),
    (b"\xff\x0a", "a JPEG XL picture; convert it to JPEG or PNG"),
    (b"\x00\x00\x00\x0cjxl ", "a JPEG XL picture; convert it to JPEG or PNG"),
    (b"8bps", "a Photoshop document; export it as JPEG or PNG"),
)
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# HEIC is HEVC inside HEIF. The libheif in pyvips-binary carries AV1 only (HEVC is patented), so it is refused by name.
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_FTYP_MAX_BYTES = 256
_LEADING_BYTES = 64


def sniff(data: bytes) -> Format:
    """The format of `data`; raises ImageRefused(`unsupported_image`) with a name for what it is where that is known."""
    for signature, found in _SIGNATURES:
        if data.startswith(signature):
            return found
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Format.WEBP
    if data[4:8] == b"ftyp":
        return _sniff_heif(data)
    leading = data[:_LEADING_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, name in _NAMED_REFUSALS:
        if leading.startswith(signature):
            raise ImageRefused("unsupported_image", f"this is {name}")
    raise ImageRefused("unsupported_image", f"the picture's format is not recognised: {_ACCEPTED}")


def _sniff_heif(data: bytes) -> Format:
    """AVIF by the brands of the `ftyp` box (ISO/IEC 14496-12 4.3): major brand, minor version, compatible brands."""
    box_bytes = min(int.from_bytes(data[:4]), _FTYP_MAX_BYTES, len(data))
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, box_bytes - 3, 4))}
    if brands & _AVIF_BRANDS:
        return Format.AVIF
    if brands & _HEIC_BRANDS:
        message = "HEIC pictures cannot be read here: convert to JPEG (on an iPhone: Settings, Camera, Most Compatible)"
        raise ImageRefused("unsupported_image", message)
    raise ImageRefused("unsupported_image", f"this is a video or another ISO media file: {_ACCEPTED}")
