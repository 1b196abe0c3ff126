"""What is said of real files of every kind, and what is refused by the header alone."""

from __future__ import annotations

import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gateway.images import ImageInfo, ImageRefused, inspect
from gateway.images.inspect import MAX_FRAMES
from gateway.images.sniff import Format, sniff
from tests.unit.gateway.images import samples
from tests.unit.gateway.images.samples import CAP, encode, photo, verdict

PHOTO = photo(320, 200)
RGBA = PHOTO.copy()
RGBA.putalpha(Image.linear_gradient("L").resize(RGBA.size))
GREY16 = Image.fromarray(np.arange(0, 64000, dtype=np.uint16).reshape(200, 320))
FRAMES = {"save_all": True, "append_images": [photo(320, 200, 1), photo(320, 200, 2)]}

KINDS = {
    "jpeg": (encode(PHOTO, "JPEG"), Format.JPEG, 1, False),
    "progressive jpeg": (encode(PHOTO, "JPEG", progressive=True), Format.JPEG, 1, False),
    "grey jpeg": (encode(PHOTO.convert("L"), "JPEG"), Format.JPEG, 1, False),
    "cmyk jpeg": (encode(PHOTO.convert("CMYK"), "JPEG"), Format.JPEG, 1, False),
    "png": (encode(PHOTO, "PNG"), Format.PNG, 1, False),
    "rgba png": (encode(RGBA, "PNG"), Format.PNG, 1, True),
    "la png": (encode(RGBA.convert("LA"), "PNG"), Format.PNG, 1, True),
    "palette png": (encode(PHOTO.convert("P"), "PNG"), Format.PNG, 1, False),
    "palette png with a hole": (encode(PHOTO.convert("P"), "PNG", transparency=0), Format.PNG, 1, True),
    "16-bit png": (encode(GREY16, "PNG"), Format.PNG, 1, False),
    "1-bit png": (encode(PHOTO.convert("1"), "PNG"), Format.PNG, 1, False),
    "animated png": (encode(PHOTO, "PNG", **FRAMES), Format.PNG, 1, False),
    "webp": (encode(PHOTO, "WEBP"), Format.WEBP, 1, False),
    "lossless webp with alpha": (encode(RGBA, "WEBP", lossless=True), Format.WEBP, 1, True),
    "animated webp": (encode(PHOTO, "WEBP", **FRAMES), Format.WEBP, 3, False),
    "gif": (encode(PHOTO, "GIF"), Format.GIF, 1, False),
    "gif 87a": (encode(PHOTO, "GIF").replace(b"GIF89a", b"GIF87a"), Format.GIF, 1, False),
    "animated gif": (encode(PHOTO, "GIF", **FRAMES), Format.GIF, 3, True),
    "bmp": (encode(PHOTO, "BMP"), Format.BMP, 1, False),
    "palette bmp": (encode(PHOTO.convert("P"), "BMP"), Format.BMP, 1, False),
    "tiff": (encode(PHOTO, "TIFF"), Format.TIFF, 1, False),
    "lzw tiff": (encode(PHOTO, "TIFF", compression="tiff_lzw"), Format.TIFF, 1, False),
    "jpeg tiff": (encode(PHOTO, "TIFF", compression="jpeg"), Format.TIFF, 1, False),
    "cmyk tiff": (encode(PHOTO.convert("CMYK"), "TIFF"), Format.TIFF, 1, False),
    "fax tiff": (encode(PHOTO.convert("1"), "TIFF", compression="group4"), Format.TIFF, 1, False),
    "big tiff": (encode(PHOTO, "TIFF", big_tiff=True), Format.TIFF, 1, False),
    "pages of tiff": (encode(PHOTO, "TIFF", **FRAMES), Format.TIFF, 3, False),
    "avif": (encode(PHOTO, "AVIF", speed=10), Format.AVIF, 1, False),
    "avif with alpha": (encode(RGBA, "AVIF", speed=10), Format.AVIF, 1, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_says_what_a_picture_is(kind):
    data, fmt, frames, has_alpha = KINDS[kind]
    info = inspect(data, max_pixels=CAP)
    assert (info.format, info.width, info.height) == (fmt, 320, 200)
    assert (info.frames, info.has_alpha, info.orientation) == (frames, has_alpha, 1)
    assert 320 * 200 < info.decode_bytes < 320 * 200 * 32 + (8 << 20)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_size_is_that_of_the_upright_picture(kind, orientation):
    info = inspect(encode(PHOTO, kind, **samples.with_orientation(orientation)), max_pixels=CAP)
    assert info.orientation == orientation
    assert (info.width, info.height) == ((200, 320) if orientation >= 5 else (320, 200))


def test_an_orientation_that_does_not_exist_is_upright():
    info = inspect(encode(PHOTO, "JPEG", **samples.with_orientation(9)), max_pixels=CAP)
    assert (info.orientation, info.width) == (1, 320)


def test_the_pixel_cap_is_exact():
    data = encode(PHOTO, "PNG")
    assert inspect(data, max_pixels=320 * 200).width == 320
    with pytest.raises(ImageRefused, match="320x200, 64000 pixels; at most 63999") as caught:
        inspect(data, max_pixels=320 * 200 - 1)
    assert caught.value.reason == "image_too_large"


BOMBS = {
    "png": samples.png_bomb(50_000, 50_000),
    "png of 16-bit rgba": samples.png_bomb(30_000, 30_000, 16, 6),
    "png at the format's end": samples.png_bomb(0x7FFFFFFF, 0x7FFFFFFF),
    "jpeg": samples.jpeg_sized(65_500, 65_500),
    "progressive jpeg": samples.jpeg_sized(65_500, 65_500, progressive=True),
    "gif": samples.gif_sized(65_535, 65_535),
    "webp": samples.webp_sized(16_384, 16_384),
    "bmp": samples.bmp_sized(60_000, 60_000),
    "bmp upside down": samples.bmp_sized(60_000, -60_000),
    "bmp at the format's end": samples.bmp_sized(0x7FFFFFFF, -0x80000000),
    "tiff": samples.tiff_sized(100_000, 100_000),
    "tiff at the format's end": samples.tiff_sized(0xFFFFFFFF, 0xFFFFFFFF),
    "avif": samples.avif_sized(60_000, 60_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_its_header(kind):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageRefused) as caught:
        inspect(BOMBS[kind], max_pixels=CAP)
    assert caught.value.reason in {"image_too_large", "invalid_image"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (encode(Image.new("RGB", (4000, 5000)), "PNG"), False),
        (samples.avif_sized(5000, 5000), True),
        (samples.jpeg_sized(6000, 6000), False),
        (samples.jpeg_sized(7000, 7000), False),
        (samples.jpeg_sized(7000, 7000, progressive=True), True),
    ],
    ids=["png", "avif", "jpeg", "large jpeg", "progressive jpeg"],
)
def test_a_decoder_that_would_hold_too_much_is_not_started(data, refused):
    if not refused:
        assert inspect(data, max_pixels=50_000_000, budget_pixels=512 * 512).decode_bytes < 32 << 20
        return
    with pytest.raises(ImageRefused, match="MiB of memory") as caught:
        inspect(data, max_pixels=50_000_000)
    assert caught.value.reason == "image_too_large"


@pytest.mark.parametrize("size", [(201 * 8, 8), (8, 201 * 8), (401, 2)])
def test_sides_of_more_than_200_to_1_are_refused_with_the_rule(size):
    with pytest.raises(ImageRefused, match="at most 200 to 1") as caught:
        inspect(encode(Image.new("RGB", size), "PNG"), max_pixels=CAP)
    assert caught.value.reason == "aspect_ratio"


def test_sides_of_200_to_1_are_accepted():
    assert inspect(encode(Image.new("RGB", (1600, 8)), "PNG"), max_pixels=CAP).width == 1600


def tiny_gif(frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame * frames + b";"


def test_frames_are_counted_and_capped():
    assert inspect(tiny_gif(MAX_FRAMES), max_pixels=CAP).frames == MAX_FRAMES
    with pytest.raises(ImageRefused, match=f"{MAX_FRAMES + 1} frames") as caught:
        inspect(tiny_gif(MAX_FRAMES + 1), max_pixels=CAP)
    assert caught.value.reason == "too_many_frames"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_unusual_pixels_are_refused(mode):
    with pytest.raises(ImageRefused, match="pixel layout") as caught:
        inspect(encode(PHOTO.convert("L").convert(mode), "TIFF"), max_pixels=CAP)
    assert caught.value.reason == "unsupported_image"


UNSUPPORTED = {
    "nothing": (b"", "not recognised"),
    "text": (b"hello", "not recognised"),
    "zeros": (bytes(100), "not recognised"),
    "half a signature": (b"\x89PNG\r\n", "not recognised"),
    "riff that is no webp": (b"RIFF\x00\x00\x00\x00WAVEfmt ", "not recognised"),
    "svg": (b'\xef\xbb\xbf \n<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "SVG"),
    "xml": (b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg/>', "SVG"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "html": (b"<!DOCTYPE html><html>", "web page"),
    "bare html": (b"\r\n<HTML><body>", "web page"),
    "jpeg xl": (b"\xff\x0a" + bytes(20), "JPEG XL"),
    "jpeg xl box": (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    "photoshop": (b"8BPS\x00\x01", "Photoshop"),
    "heic": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(50), "HEIC"),
    "heif": (b"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00miaf" + bytes(50), "HEIC"),
    "mp4": (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41" + bytes(50), "video"),
    "mvg": (b"push graphic-context\nimage over 0,0 0,0 'https://example.com/'\npop graphic-context", "not recognised"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not recognised"),
    "pgm": (b"P5 10 10 255 " + bytes(100), "not recognised"),
    "radiance": (b"#?RADIANCE\n", "not recognised"),
    "fits": (b"SIMPLE  =                    T", "not recognised"),
    "vips": (b"\x08\xf2\xa6\xb6" + bytes(64), "not recognised"),
    "matlab": (b"MATLAB 5.0 MAT-file" + bytes(128), "not recognised"),
    "jpeg 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "not recognised"),
    "icon": (b"\x00\x00\x01\x00\x01\x00", "not recognised"),
    "zip": (b"PK\x03\x04", "not recognised"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_other_files_are_refused_by_name(kind):
    data, said = UNSUPPORTED[kind]
    with pytest.raises(ImageRefused, match=said) as caught:
        inspect(data, max_pixels=CAP)
    assert caught.value.reason == "unsupported_image"


@pytest.mark.parametrize(
    "brands", [b"avif\x00\x00\x00\x00", b"mif1\x00\x00\x00\x00avif", b"avis\x00\x00\x00\x00msf1miaf"]
)
def test_avif_is_known_by_any_of_its_brands(brands):
    box = struct.pack(">I", len(brands) + 8) + b"ftyp" + brands
    assert sniff(box + bytes(100)) is Format.AVIF


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_cut_anywhere_is_refused_or_read_but_never_a_crash(kind):
    data = KINDS[kind][0]
    for size in sorted({1, 2, 4, 8, 12, 13, 20, 30, 33, 54, 60, 100, 200, 400}):
        match verdict(inspect, data[:size], max_pixels=CAP):
            case ImageRefused(reason=reason):
                assert reason in {"invalid_image", "unsupported_image"}
            case info:
                assert (info.width, info.height) == (320, 200)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scrambled_header_is_refused_or_read_but_never_a_crash(kind):
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    original = np.frombuffer(KINDS[kind][0], np.uint8)
    for _ in range(60):
        data = original.copy()
        at = rng.integers(0, min(len(data), 300), 4)
        data[at] = rng.integers(0, 256, 4)
        answer = verdict(inspect, data.tobytes(), max_pixels=CAP)
        assert isinstance(answer, (ImageInfo, ImageRefused))


def test_a_file_is_what_its_first_bytes_say():
    """Polyglots: one file, two readings. The signature at the start decides, and the decoder of that format alone."""
    jpeg, gif = KINDS["jpeg"][0], KINDS["gif"][0]
    assert inspect(gif + jpeg, max_pixels=CAP).format is Format.GIF
    assert inspect(jpeg + b"%PDF-1.4 <svg/>" + gif, max_pixels=CAP).format is Format.JPEG
    for disguise in (b"GIF89a/*<svg>*/=1;alert(1)//", b"\xff\xd8\xff<svg></svg>", b"BM<svg xmlns=''/>" + bytes(60)):
        with pytest.raises(ImageRefused) as caught:
            inspect(disguise, max_pixels=CAP)
        assert caught.value.reason in {"invalid_image", "unsupported_image"}


def test_a_refusal_says_nothing_of_the_decoder():
    with pytest.raises(ImageRefused) as caught:
        inspect(b"\xff\xd8\xff" + b"secret of another request \xff\xfe\xfa", max_pixels=CAP)
    assert str(caught.value) == "the JPEG picture is corrupt or cut short: check that it opens, and send it again"
