"""Which files may be handed on as they are: only those that hold nothing but the picture."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from gateway.images.layout import _WINDOW_BYTES, JpegLayout, jpeg_layout, png_is_clean
from tests.unit.gateway.images import samples
from tests.unit.gateway.images.samples import encode, photo, png_chunk

PHOTO = photo(96, 64)
JPEG = encode(PHOTO, "JPEG")
PNG = encode(PHOTO, "PNG")


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(segment: bytes) -> bytes:
    return JPEG[:2] + segment + JPEG[2:]


def png_with(chunk: bytes) -> bytes:
    return PNG[:33] + chunk + PNG[33:]


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "secret")
    return info


@pytest.mark.parametrize(
    ("data", "scans"),
    [
        (JPEG, 1),
        (encode(PHOTO, "JPEG", subsampling=0, quality=100), 1),
        (encode(PHOTO, "JPEG", optimize=True), 1),
        (encode(PHOTO, "JPEG", restart_marker_blocks=2), 1),
        (encode(PHOTO.convert("L"), "JPEG"), 1),
        (encode(PHOTO, "JPEG", progressive=True), 10),
        (JPEG[:2] + b"\xff\xff\xff" + JPEG[3:], 1),  # fill bytes before a marker are legal
    ],
)
def test_plain_jpegs_are_clean(data, scans):
    layout = jpeg_layout(data)
    assert layout.clean
    assert layout.scans == scans


@pytest.mark.parametrize("scanned", [_WINDOW_BYTES - 2, _WINDOW_BYTES - 1, _WINDOW_BYTES, 3 * _WINDOW_BYTES - 1])
def test_the_end_is_found_wherever_it_lies_in_long_data(scanned):
    scan = JPEG.index(b"\xff\xda") + 2
    head = JPEG[: scan + int.from_bytes(JPEG[scan : scan + 2])]
    assert jpeg_layout(head + bytes(scanned) + b"\xff\xd9") == JpegLayout(1, clean=True)
    assert not jpeg_layout(head + bytes(scanned) + b"\xff").clean


@pytest.mark.parametrize(
    "data",
    [
        b"",
        JPEG[:1],
        b"\x00" + JPEG[1:],
        JPEG + b"\x00",
        JPEG + JPEG,
        JPEG[:-1],
        JPEG[:-2],
        JPEG[:200],
        JPEG[:3],
        b"\xff\xd8\xff\xd9",
        jpeg_with(jpeg_segment(0xFE, b"a comment")),
        jpeg_with(jpeg_segment(0xE0, b"JFXX\x00\x10" + bytes(8))),
        jpeg_with(jpeg_segment(0xE0, b"JFIF\x00" + bytes(9) + b"thumbnail")),
        jpeg_with(jpeg_segment(0xED, b"Photoshop 3.0\x00")),
        jpeg_with(b"\xff\xfe\x00\x01"),
        jpeg_with(b"\xff\x01"),
        jpeg_with(b"junk between the markers"),
        encode(PHOTO, "JPEG", **samples.with_orientation(1)),
        encode(PHOTO, "JPEG", icc_profile=samples.srgb_profile()),
        encode(PHOTO, "JPEG", comment=b"hello"),
        encode(PHOTO.convert("CMYK"), "JPEG"),
        JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x08"),  # extended sequential
        JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),  # 12 bits
        JPEG[: JPEG.index(b"\xff\xc0")] + jpeg_segment(0xC0, bytes.fromhex("08 ffff ffff 03")) + JPEG[JPEG.index(b"\xff\xc0") :],
    ],
)  # fmt: skip
def test_jpegs_with_anything_else_are_not(data):
    assert not jpeg_layout(data).clean


@pytest.mark.parametrize(
    "data",
    [
        PNG,
        encode(PHOTO.convert("L"), "PNG"),
        encode(PHOTO.convert("P"), "PNG"),
        encode(PHOTO, "PNG", dpi=(72, 72)),
        png_with(png_chunk(b"sRGB", b"\x00")),
        png_with(png_chunk(b"cHRM", bytes(32))),
    ],
)
def test_plain_pngs_are_clean(data):
    assert png_is_clean(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PNG[:40],
        PNG[:-1],
        PNG[:-12],
        PNG + b"\x00",
        PNG + bytes(100),
        encode(PHOTO.convert("RGBA"), "PNG"),
        encode(PHOTO.convert("LA"), "PNG"),
        encode(PHOTO.convert("P"), "PNG", transparency=1),
        encode(PHOTO.convert("1"), "PNG"),
        encode(Image.new("I;16", (9, 9)), "PNG"),
        encode(PHOTO, "PNG", pnginfo=text()),
        encode(PHOTO, "PNG", icc_profile=samples.srgb_profile()),
        encode(PHOTO, "PNG", **samples.with_orientation(3)),
        encode(PHOTO, "PNG", save_all=True, append_images=[photo(96, 64, 1)]),
        png_with(png_chunk(b"sRGB", bytes(100_000))),
        png_with(png_chunk(b"prVt", b"unknown")),
    ],
)
def test_pngs_with_anything_else_are_not(data):
    assert not png_is_clean(data)


@given(st.binary(max_size=200), st.integers(0, len(JPEG)))
def test_any_bytes_get_an_answer(junk, at):
    assert jpeg_layout(b"\xff\xd8" + junk).scans >= 0
    jpeg_layout(JPEG[:at] + junk + JPEG[at:])
    png_is_clean(PNG[:at] + junk + PNG[at:])
