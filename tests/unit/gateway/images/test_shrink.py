"""Real pictures through the real decoder, held against Pillow's own reading and resampling of them."""

from __future__ import annotations

import io
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, ImageOps

from gateway.images import inspect, shrink, target_size
from tests.unit.gateway.images import samples
from tests.unit.gateway.images.samples import BUDGET, CAP, difference, encode, photo, pixels
from tests.unit.gateway.images.test_bmp import bmp_v5
from tests.unit.gateway.images.test_inspect import KINDS

LARGE = photo(900, 640)
SMALL = photo(320, 200)
JUST_VISIBLE = 2.0
"""Grey levels. Measured here: 0.2 to 1.5, of which most is JPEG at quality 90 and the kernels' different taste."""


def bring(data: bytes, max_pixels: int = BUDGET):
    return shrink(data, inspect(data, max_pixels=CAP), max_pixels=max_pixels)


def as_pillow_would(picture: Image.Image, max_pixels: int = BUDGET) -> np.ndarray:
    upright = ImageOps.exif_transpose(picture)
    if "A" in upright.getbands() or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        upright = Image.alpha_composite(white, rgba)
    size = target_size(*upright.size, max_pixels)
    return pixels(upright.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def metadata(data: bytes) -> set[str]:
    info = Image.open(io.BytesIO(data)).info
    return set(info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "progressive", "progression"}


ALPHA = LARGE.copy()
ALPHA.putalpha(Image.radial_gradient("L").resize(LARGE.size))
LARGE_KINDS = {
    "jpeg": encode(LARGE, "JPEG", quality=95),
    "progressive jpeg": encode(LARGE, "JPEG", quality=95, progressive=True),
    "grey jpeg": encode(LARGE.convert("L"), "JPEG", quality=95),
    "png": encode(LARGE, "PNG", compress_level=1),
    "rgba png": encode(ALPHA, "PNG", compress_level=1),
    "la png": encode(ALPHA.convert("LA"), "PNG", compress_level=1),
    "palette png": encode(LARGE.convert("P"), "PNG", compress_level=1),
    "palette png with a hole": encode(LARGE.convert("P"), "PNG", compress_level=1, transparency=40),
    "webp": encode(LARGE, "WEBP", quality=95, method=0),
    "webp with alpha": encode(ALPHA, "WEBP", quality=95, method=0),
    "gif": encode(LARGE, "GIF"),
    "animated gif": encode(LARGE, "GIF", save_all=True, append_images=[photo(900, 640, 5)]),
    "bmp": encode(LARGE, "BMP"),
    "bmp with alpha": bmp_v5(ALPHA),
    "tiff": encode(LARGE, "TIFF"),
    "pages of tiff": encode(LARGE, "TIFF", save_all=True, append_images=[photo(900, 640, 5)]),
    "avif": encode(LARGE, "AVIF", quality=95, speed=10),
}


@pytest.mark.parametrize("kind", LARGE_KINDS)
def test_a_large_picture_comes_out_as_pillow_would_show_it(kind):
    data = LARGE_KINDS[kind]
    out = bring(data)
    assert (out.width, out.height) == target_size(900, 640, BUDGET)
    assert out.media_type == "image/jpeg"
    assert Image.open(io.BytesIO(out.data)).size == (out.width, out.height)
    assert difference(pixels(out.data), as_pillow_would(Image.open(io.BytesIO(data)))) < JUST_VISIBLE
    assert metadata(out.data) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_picture_keeps_its_size(kind):
    data = KINDS[kind][0]
    out = bring(data)
    assert (out.width, out.height) == (320, 200)
    assert Image.open(io.BytesIO(out.data)).format == out.media_type.removeprefix("image/").upper()
    if kind not in {"16-bit png", "cmyk jpeg", "cmyk tiff"}:  # Pillow has no colour management; see below
        assert difference(pixels(out.data), as_pillow_would(Image.open(io.BytesIO(data)))) < JUST_VISIBLE
    assert metadata(out.data) == set()


@pytest.mark.parametrize("factor", [1.2, 1.6, 2.5, 3.1, 5.9, 6.1, 11.9, 12.1, 14])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_every_shrink_on_load_gives_the_same_picture(kind, factor):
    max_pixels = 96 * 96
    data = encode(photo(int(96 * factor), int(96 * factor), seed=int(factor * 10)), kind, quality=95)
    out = bring(data, max_pixels)
    assert (out.width, out.height) == (96, 96)
    assert difference(pixels(out.data), as_pillow_would(Image.open(io.BytesIO(data)), max_pixels)) < JUST_VISIBLE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "picture"), [("JPEG", LARGE), ("JPEG", SMALL), ("PNG", SMALL), ("WEBP", LARGE), ("TIFF", SMALL)]
)
def test_exif_orientation_is_applied_and_gone(kind, picture, orientation):
    data = encode(picture, kind, **samples.with_orientation(orientation))
    out = bring(data)
    expected = as_pillow_would(Image.open(io.BytesIO(data)))
    assert (out.height, out.width) == expected.shape[:2]
    assert difference(pixels(out.data), expected) < JUST_VISIBLE
    assert not Image.open(io.BytesIO(out.data)).getexif()


@pytest.mark.parametrize(
    "data",
    [
        encode(SMALL, "JPEG"),
        encode(SMALL, "JPEG", progressive=True),
        encode(SMALL.convert("L"), "JPEG"),
        encode(SMALL, "PNG"),
        encode(SMALL.convert("P"), "PNG"),
        encode(SMALL.convert("L"), "PNG"),
        encode(photo(512, 512), "JPEG"),
        encode(photo(1, 1), "PNG"),
    ],
)
def test_a_small_clean_picture_is_the_very_same_object(data):
    out = bring(data)
    assert out.data is data
    picture = Image.open(io.BytesIO(data))
    assert (out.width, out.height) == picture.size
    assert out.media_type == Image.MIME[picture.format]


@pytest.mark.parametrize(
    "data",
    [
        encode(SMALL, "JPEG", comment=b"secret words"),
        encode(SMALL, "JPEG", icc_profile=samples.srgb_profile()),
        encode(SMALL, "JPEG") + b"secret words %PDF-1.4",
        encode(SMALL, "PNG") + b"secret words",
        encode(SMALL, "WEBP"),
        encode(photo(544, 544), "JPEG"),
    ],
)
def test_anything_more_is_encoded_anew(data):
    out = bring(data)
    assert out.data is not data
    assert b"secret words" not in out.data
    assert b"%PDF" not in out.data


def test_a_small_picture_in_a_large_file_is_encoded_anew():
    stuffed = encode(SMALL, "PNG")
    at = stuffed.index(b"IEND") - 4
    stuffed = stuffed[:at] + samples.png_chunk(b"IDAT", b"secret words" * 40_000) + stuffed[at:]
    assert b"secret words" not in bring(stuffed).data


def test_a_drawing_keeps_its_exact_pixels():
    drawing = Image.new("RGBA", (400, 300), (255, 255, 255, 0))
    draw = ImageDraw.Draw(drawing)
    for row in range(0, 300, 12):
        draw.text((5, row), f"row {row}: red on blue 0123456789", fill=(255, 0, 0, 255))
    for kind in ("PNG", "GIF"):
        data = encode(drawing, kind)
        out = bring(data)
        assert out.media_type == "image/png"
        assert np.array_equal(pixels(out.data), as_pillow_would(Image.open(io.BytesIO(data))))


def test_a_photo_in_a_lossless_format_becomes_a_jpeg():
    data = encode(photo(400, 300).convert("RGBA"), "PNG")
    out = bring(data)
    assert out.media_type == "image/jpeg"
    assert len(out.data) < len(data) / 3


def test_colours_are_not_subsampled():
    """Red on blue in alternating columns: with 4:2:0 both become purple."""
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, 0::2] = (220, 30, 30)
    stripes[:, 1::2] = (30, 30, 220)
    out = bring(encode(Image.fromarray(stripes), "BMP"))
    got = pixels(out.data)
    assert out.media_type == "image/jpeg"
    assert (got[:, 0::2, 0] - got[:, 1::2, 0]).mean() > 150


def test_transparent_is_white_at_the_edges_too():
    """Hidden colour under full transparency must not bleed into what is seen when it is resampled."""
    rgba = np.zeros((1024, 1024, 4), np.uint8)
    rgba[..., 0] = 255  # transparent red everywhere
    rgba[:, 512:] = (0, 0, 255, 255)
    out = pixels(bring(encode(Image.fromarray(rgba), "PNG")).data)
    left, right = out[:, : out.shape[1] // 2 - 8], out[:, out.shape[1] // 2 + 8 :]
    assert np.abs(left - 255).max() < 4
    assert np.abs(right - (0, 0, 255)).max() < 12
    edge = out[:, out.shape[1] // 2 - 3 : out.shape[1] // 2 + 3]
    assert (edge[..., 0] <= edge[..., 1] + 30).all()


@pytest.mark.parametrize("size", [(300, 200), (900, 640)])
def test_16_bits_become_8(size):
    ramp = np.tile(np.linspace(0, 65535, size[0]).astype(np.uint16), (size[1], 1))
    out = bring(encode(Image.fromarray(ramp), "PNG"))
    got = pixels(out.data)
    expected = np.linspace(0, 255, out.width)
    assert np.abs(got.mean((0, 2)) - expected).max() < 4


def test_16_bit_colour_with_alpha_becomes_8_bits_on_white():
    rows = np.zeros((64, 64, 4), ">u2")
    rows[..., 1] = 65535
    rows[:, 32:, 3] = 65535
    header = bytes.fromhex("00000040 00000040 10 06 00 00 00")
    body = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in rows))
    data = (
        samples.PNG_SIGNATURE
        + samples.png_chunk(b"IHDR", header)
        + samples.png_chunk(b"IDAT", body)
        + samples.png_chunk(b"IEND", b"")
    )
    got = pixels(bring(data).data)
    assert np.abs(got[:, :32] - 255).max() < 2
    assert np.abs(got[:, 32:] - (0, 255, 0)).max() < 2


@pytest.mark.parametrize("size", [(320, 200), (900, 640)])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_comes_out_in_its_colours(kind, size):
    quarters = Image.new("CMYK", size)
    inks = [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 255, 255, 0), (237, 28, 36)),
        ((255, 0, 0, 0), (0, 174, 239)),
        ((0, 0, 0, 255), (35, 31, 32)),
    ]
    boxes = [(0, 0), (size[0] // 2, 0), (0, size[1] // 2), (size[0] // 2, size[1] // 2)]
    for (ink, _), (x, y) in zip(inks, boxes, strict=True):
        quarters.paste(ink, (x, y, x + size[0] // 2, y + size[1] // 2))
    options = {"quality": 95} if kind == "JPEG" else {}
    got = pixels(bring(encode(quarters, kind, **options)).data)
    height, width = got.shape[:2]
    for (_, expected), (fx, fy) in zip(inks, [(1, 1), (3, 1), (1, 3), (3, 3)], strict=True):
        assert np.abs(got[height * fy // 4, width * fx // 4] - expected).max() < 45


@pytest.mark.parametrize("size", [(320, 200), (900, 640)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_embedded_profile_is_applied(kind, size):
    profile = samples.gbr_profile()
    red = Image.new("RGB", size, (200, 30, 30))
    expected = ImageCms.profileToProfile(
        red.resize((1, 1)), io.BytesIO(profile), ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    options = {"lossless": True} if kind == "WEBP" else {}
    got = pixels(bring(encode(red, kind, icc_profile=profile, **options)).data)
    assert np.abs(got - expected.getpixel((0, 0))).max() < 6
    assert np.abs(got.mean((0, 1)) - (200, 30, 30)).max() > 100


@pytest.mark.parametrize(
    "profile", [b"", b"not a profile", samples.srgb_profile()[:200], samples.srgb_profile()[:140] + bytes(400)]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_broken_profile_is_ignored(profile, mode):
    plain = encode(SMALL.convert(mode), "JPEG", quality=95)
    broken = encode(SMALL.convert(mode), "JPEG", quality=95, icc_profile=profile)
    assert difference(pixels(bring(broken).data), pixels(bring(plain).data)) < JUST_VISIBLE


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_another_kind_of_colour_is_ignored(mode):
    plain = encode(SMALL.convert(mode), "JPEG", quality=95)
    odd = encode(SMALL.convert(mode), "JPEG", quality=95, icc_profile=samples.gbr_profile())
    assert difference(pixels(bring(odd).data), pixels(bring(plain).data)) < JUST_VISIBLE


@pytest.mark.parametrize(("mode", "space"), [("RGB", b"RGB "), ("L", b"GRAY"), ("CMYK", b"CMYK")])
def test_a_profile_that_is_no_description_of_a_picture_is_ignored(mode, space):
    """Device links and the like are valid profiles that nothing can be read through: the library refuses them."""
    link = samples.srgb_profile()
    link = link[:12] + b"link" + space + link[20:]
    plain = encode(SMALL.convert(mode), "JPEG", quality=95)
    odd = encode(SMALL.convert(mode), "JPEG", quality=95, icc_profile=link)
    assert difference(pixels(bring(odd).data), pixels(bring(plain).data)) < JUST_VISIBLE


def test_an_extreme_strip_stays_within_the_budget():
    out = bring(encode(photo(6400, 33), "PNG"), max_pixels=64 * 1024)
    assert (out.width, out.height) == (2048, 32)


def test_threads_do_not_mix_pictures():
    sources = [encode(photo(700, 500, seed), "JPEG") for seed in range(6)]
    alone = [bring(data).data for data in sources]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: bring(data).data, sources * 4))
    assert together == alone * 4
