"""Hostile picture files, made by code from small real pictures: name → (bytes, code, words of the message)."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from tests.unit.gateway.images.samples import (
    PNG_SIGNATURE,
    avif_sized,
    bmp_sized,
    encode,
    gif_sized,
    jpeg_sized,
    photo,
    png_bomb,
    png_chunk,
    tiff_sized,
    webp_sized,
)
from tests.unit.gateway.images.test_inspect import UNSUPPORTED, tiny_gif

File = tuple[bytes, str, str]
PHOTO = photo(320, 200)
RGBA = PHOTO.copy()
RGBA.putalpha(Image.linear_gradient("L").resize(RGBA.size))
CORRUPT = "corrupt or cut short"
PAYLOAD = b"<script>alert(document.cookie)</script>"
"""What polyglots carry; it must never reach the engine."""

WHOLE = {
    "jpeg": encode(PHOTO, "JPEG"),
    "progressive jpeg": encode(PHOTO, "JPEG", progressive=True),
    "cmyk jpeg": encode(PHOTO.convert("CMYK"), "JPEG"),
    "png": encode(PHOTO, "PNG"),
    "palette png": encode(PHOTO.convert("P"), "PNG"),
    "rgba png": encode(RGBA, "PNG"),
    "webp": encode(PHOTO, "WEBP"),
    "lossless webp": encode(RGBA, "WEBP", lossless=True),
    "bmp": encode(PHOTO, "BMP"),
    "tiff": encode(PHOTO, "TIFF"),
    "lzw tiff": encode(PHOTO, "TIFF", compression="tiff_lzw"),
    "avif": encode(PHOTO, "AVIF", speed=10),
}
GIF = encode(PHOTO, "GIF")


def files() -> dict[str, File]:
    """Everything that must be refused."""
    return truncated() | bombs() | lies() | impostors() | polyglots() | shapes() | damaged()


def truncated() -> dict[str, File]:
    cuts = {"in its header": 40, "at 30 %": 0.3, "at 60 %": 0.6, "at 95 %": 0.95}
    return {
        f"{kind} cut {name}": (
            data[: cut if isinstance(cut, int) else int(len(data) * cut)],
            "invalid_image",
            "cut short",
        )
        for kind, data in WHOLE.items()
        for name, cut in cuts.items()
    } | {f"gif cut to {size} bytes": (GIF[:size], "invalid_image", CORRUPT) for size in (6, 13, 40)}


def bombs() -> dict[str, File]:
    large = "at most"
    return {
        "png bomb": (png_bomb(50_000, 50_000), "image_too_large", large),
        "16-bit rgba png bomb": (png_bomb(30_000, 30_000, 16, 6), "image_too_large", large),
        "png of 2^31": (png_bomb(0x7FFFFFFF, 0x7FFFFFFF), "invalid_image", CORRUPT),
        "interlaced png bomb": (interlaced(8_000, 6_000), "image_too_large", "MiB of memory"),
        "jpeg bomb": (jpeg_sized(65_500, 65_500), "image_too_large", large),
        "progressive jpeg bomb": (jpeg_sized(65_500, 65_500, progressive=True), "image_too_large", large),
        "progressive jpeg below the pixel cap": (
            jpeg_sized(7_000, 7_000, progressive=True),
            "image_too_large",
            "memory",
        ),
        "jpeg of 400 scans": (scans(400), "invalid_image", "more than 100 scans"),
        "gif bomb": (gif_sized(65_535, 65_535), "image_too_large", large),
        "webp bomb": (webp_sized(16_384, 16_384), "invalid_image", CORRUPT),
        "bmp bomb": (bmp_sized(60_000, 60_000), "invalid_image", "cut short"),
        "bmp bomb upside down": (bmp_sized(60_000, -60_000), "invalid_image", "cut short"),
        "bmp at the format's end": (bmp_sized(0x7FFFFFFF, -0x80000000), "invalid_image", "cut short"),
        "tiff bomb": (tiff_sized(100_000, 100_000), "image_too_large", large),
        "tiff at the format's end": (tiff_sized(0xFFFFFFFF, 0xFFFFFFFF), "invalid_image", CORRUPT),
        "avif bomb": (avif_sized(60_000, 60_000), "image_too_large", large),
        "avif below the pixel cap": (avif_sized(5_000, 5_000), "image_too_large", "MiB of memory"),
        "gif of 1,001 frames": (tiny_gif(1_001), "too_many_frames", "1001 frames"),
        "gif of 100,000 frames": (tiny_gif(100_000), "too_many_frames", "at most 1000"),
        "more bytes than a picture may have": (WHOLE["png"] + bytes(3 << 20), "image_too_large", "bytes, at most"),
    }


def lies() -> dict[str, File]:
    """Headers that promise more than there is."""
    return {
        "png short of rows": (png_bomb(4_000, 4_000), "invalid_image", CORRUPT),
        "tiff short of strips": (tiff_sized(3_000, 3_000), "invalid_image", CORRUPT),
        "avif smaller than it says": (avif_sized(640, 480), "invalid_image", CORRUPT),
        "avif larger than it says": (lying_avif(), "invalid_image", CORRUPT),
        "webp with a frame beside its canvas": (webp_sized(32, 16), "invalid_image", CORRUPT),
        "bmp with pixels before its header": (
            patched(WHOLE["bmp"], 10, struct.pack("<I", 2)),
            "invalid_image",
            "cut short",
        ),
        "bmp with pixels behind its end": (
            patched(WHOLE["bmp"], 10, b"\xff\xff\xff\x7f"),
            "invalid_image",
            "cut short",
        ),
        "bmp of 40,000 bits": (patched(WHOLE["bmp"], 28, struct.pack("<H", 40_000)), "unsupported_image", "BMP"),
        "bmp that is run-length coded": (patched(WHOLE["bmp"], 30, struct.pack("<I", 1)), "unsupported_image", "BMP"),
        "bmp holding a jpeg": (patched(WHOLE["bmp"], 30, struct.pack("<I", 4)), "unsupported_image", "BMP"),
        "png that calls itself jpeg": (b"\xff\xd8\xff" + WHOLE["png"], "invalid_image", CORRUPT),
        "jpeg that calls itself png": (PNG_SIGNATURE + WHOLE["jpeg"], "invalid_image", CORRUPT),
        "riff of another size": (patched(WHOLE["webp"], 4, b"\x10\x00\x00\x00"), "invalid_image", CORRUPT),
        "tiff whose directory is itself": (
            WHOLE["tiff"][:4] + struct.pack("<I", 4) + bytes(64),
            "invalid_image",
            CORRUPT,
        ),
        "tiff whose directory is behind its end": (b"II*\0" + b"\xff\xff\xff\xff", "invalid_image", CORRUPT),
    }


def impostors() -> dict[str, File]:
    """Other files, most of which some library would open."""
    return {kind: (data or b"\0", "unsupported_image", said) for kind, (data, said) in UNSUPPORTED.items()}


def polyglots() -> dict[str, File]:
    """A picture's first bytes in front of something else."""
    return {
        "gif that is javascript": (b"GIF89a/*" + PAYLOAD + b"*/=1;", "invalid_image", CORRUPT),
        "jpeg that is svg": (b"\xff\xd8\xff<svg onload='alert(1)'/>", "invalid_image", CORRUPT),
        "bmp that is svg": (b"BM<svg xmlns=''/>" + bytes(60), "unsupported_image", "BMP"),
        "png that is php": (PNG_SIGNATURE + b"<?php system($_GET['c']); ?>" + bytes(40), "invalid_image", CORRUPT),
        "tiff that is a shell script": (b"II*\0\n#!/bin/sh\nid\n" + bytes(40), "invalid_image", CORRUPT),
        "webp that is html": (b"RIFF\x20\0\0\0WEBP" + PAYLOAD, "invalid_image", CORRUPT),
        "avif that is html": (b"\0\0\0\x14ftypavif\0\0\0\0avif" + PAYLOAD, "invalid_image", CORRUPT),
        "zip in front of a png": (b"PK\x03\x04" + WHOLE["png"], "unsupported_image", "not recognised"),
        "html in front of a jpeg": (b"<html><!--" + WHOLE["jpeg"], "unsupported_image", "web page"),
        "pdf in front of a jpeg": (b"%PDF-1.4\n" + WHOLE["jpeg"], "unsupported_image", "PDF"),
    }


def shapes() -> dict[str, File]:
    """Sizes that no model takes."""
    flat = {(1_608, 8): "wide", (8, 1_608): "high", (401, 2): "a hair too wide", (1, 5_000): "a line"}
    found = {
        f"{name} {kind}": (encode(Image.new("RGB", size), kind), "aspect_ratio", "at most 200 to 1")
        for size, name in flat.items()
        for kind in ("PNG", "JPEG", "TIFF")
    }
    none = "invalid_image"
    return found | {
        "png without width": (png_bomb(0, 10), none, CORRUPT),
        "png without height": (png_bomb(10, 0), none, CORRUPT),
        "jpeg without lines": (jpeg_sized(64, 0), none, CORRUPT),
        "jpeg without columns": (jpeg_sized(0, 48), none, CORRUPT),
        "bmp without pixels": (bmp_sized(0, 48), none, "no pixels"),
        "bmp of negative width": (bmp_sized(-64, 48), none, "no pixels"),
        "tiff without pixels": (tiff_sized(0, 0), none, CORRUPT),
        "avif without pixels": (avif_sized(0, 0), none, CORRUPT),
        "floating-point tiff": (encode(PHOTO.convert("F"), "TIFF"), "unsupported_image", "pixel layout"),
        "32-bit tiff": (encode(PHOTO.convert("I"), "TIFF"), "unsupported_image", "pixel layout"),
    }


def damaged() -> dict[str, File]:
    """Broken within."""
    png = WHOLE["png"]
    at = png.index(b"IDAT")
    header = png[: at - 4]
    end = png_chunk(b"IEND", b"")
    return {
        "png with a wrong checksum": (patched(png, at + 20, bytes([png[at + 20] ^ 0xFF])), "invalid_image", CORRUPT),
        "png of noise": (header + png_chunk(b"IDAT", b"\xff" * 500) + end, "invalid_image", CORRUPT),
        "png without pixels": (header + end, "invalid_image", CORRUPT),
        "png of wrong filters": (
            header + png_chunk(b"IDAT", zlib.compress(b"\x09" * 200 * 961)) + end, "invalid_image", CORRUPT),
        "png of no known colour": (png_bomb(64, 48, 8, 5), "invalid_image", CORRUPT),
        "png of 3 bits": (png_bomb(64, 48, 3, 2), "invalid_image", CORRUPT),
        "palette png without a palette": (png_bomb(64, 48, 8, 3), "invalid_image", CORRUPT),
        "jpeg without tables": (WHOLE["jpeg"].replace(b"\xff\xdb", b"\xff\xfe"), "invalid_image", CORRUPT),
        "jpeg of arithmetic coding": (WHOLE["jpeg"].replace(b"\xff\xc0", b"\xff\xcb"), "invalid_image", CORRUPT),
        "jpeg of 12 bits": (patched(WHOLE["jpeg"], WHOLE["jpeg"].index(b"\xff\xc0") + 4, b"\x0c"), "invalid_image", CORRUPT),
        "lossless jpeg": (WHOLE["jpeg"].replace(b"\xff\xc0", b"\xff\xc3"), "invalid_image", CORRUPT),
        "lossless webp of zeros": (WHOLE["lossless webp"][:20] + bytes(5_000), "invalid_image", CORRUPT),
        "lzw tiff of ones": (WHOLE["lzw tiff"][:8] + b"\xff" * 3_000 + WHOLE["lzw tiff"][3_008:], "invalid_image", CORRUPT),
        "avif without its pixels": (WHOLE["avif"][: WHOLE["avif"].index(b"mdat") + 4] + bytes(999), "invalid_image", CORRUPT),
        "avif whose boxes have no end": (WHOLE["avif"][:32] + b"\xff" * 200, "invalid_image", CORRUPT),
    }  # fmt: skip


def harmless() -> dict[str, bytes]:
    """Strange but sound: shown to the model, without anything but their pixels."""
    jpeg, png = WHOLE["jpeg"], WHOLE["png"]
    frames = {"save_all": True, "append_images": [photo(320, 200, 1)]}
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 9, PAYLOAD.decode()
    return {
        "jpeg in front of a script": jpeg + PAYLOAD,
        "jpeg with a script as comment": jpeg[:2] + segment(0xFE, PAYLOAD) + jpeg[2:],
        "jpeg with a broken profile": jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\x01\x01" + PAYLOAD * 20) + jpeg[2:],
        "jpeg with half a profile": jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\x01\x09" + PAYLOAD) + jpeg[2:],
        "jpeg with broken exif": jpeg[:2] + segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff" + PAYLOAD) + jpeg[2:],
        "jpeg with exif in a circle": jpeg[:2] + segment(0xE1, circular_exif() + PAYLOAD) + jpeg[2:],
        "jpeg turned in no known way": encode(PHOTO, "JPEG", exif=exif),
        "jpeg with xmp": jpeg[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + PAYLOAD) + jpeg[2:],
        "png in front of a zip": png + b"PK\x03\x04" + PAYLOAD,
        "png with a script as text": png[:33] + png_chunk(b"tEXt", b"Comment\0" + PAYLOAD) + png[33:],
        "png with a broken profile": png[:33] + png_chunk(b"iCCP", b"x\0\0" + PAYLOAD) + png[33:],
        "png with a profile of 100 MB": png[:33]
        + png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(10 << 20)))
        + png[33:],
        # libjpeg shows what there is on grey, and has tables of its own, as Motion JPEG needs; zeros are flat VP8 blocks.
        "jpeg short of lines": jpeg_sized(4_000, 4_000),
        "jpeg without huffman tables": jpeg.replace(b"\xff\xc4", b"\xff\xfe"),
        "webp of zeros": WHOLE["webp"][:30] + bytes(len(WHOLE["webp"]) - 30),
        "animated gif": encode(PHOTO, "GIF", **frames),
        "animated webp": encode(PHOTO, "WEBP", **frames),
        "animated png": encode(PHOTO, "PNG", **frames),
        "gif in front of a script": GIF + PAYLOAD,
    }


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def circular_exif() -> bytes:
    """A directory whose sub-directory, and whose next one, are itself."""
    return b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)


def scans(count: int) -> bytes:
    data = WHOLE["progressive jpeg"]
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def interlaced(width: int, height: int) -> bytes:
    data = bytearray(png_bomb(width, height, 16, 6))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def lying_avif() -> bytes:
    data = encode(Image.new("RGB", (2_000, 2_000), "green"), "AVIF", speed=10)
    return patched(data, data.index(b"ispe") + 8, struct.pack(">II", 64, 48))
