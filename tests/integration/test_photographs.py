"""Real photographs through the shrinker: the same picture that Pillow's own resize gives, whatever the file's format."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gateway.images import inspect, shrink, target_size
from tests.support.photographs import NAMES, photograph, twelve_megapixels
from tests.unit.gateway.images.samples import BUDGET, CAP, difference, encode, pixels, with_orientation

JUST_VISIBLE = 2.0
"""Grey levels of 255, after a 4x4 box."""
LEAST_SSIM = 0.93
"""Structural similarity; 1 is the same. JPEG at quality 90 of Pillow's own resize gives 0.94 on the noisiest of them."""
SIDEWAYS = {5, 6, 7, 8}
BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""What a camera does to the upright picture before it writes that orientation."""


def bring(data, max_pixels=BUDGET):
    return shrink(data, inspect(data, max_pixels=CAP), max_pixels=max_pixels)


def resized(picture, max_pixels=BUDGET):
    return picture.resize(target_size(*picture.size, max_pixels), Image.Resampling.LANCZOS, reducing_gap=3.0)


def ssim(one, other):
    """Mean structural similarity of the luma in windows of 8x8 (Wang et al. 2004, with K1 = 0.01 and K2 = 0.03)."""
    one, other = (a @ np.array([0.299, 0.587, 0.114]) for a in (one, other))
    height, width = one.shape[0] // 8 * 8, one.shape[1] // 8 * 8
    a, b = (
        x[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 64) for x in (one, other)
    )
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = ((a - a.mean(1, keepdims=True)) * (b - b.mean(1, keepdims=True))).mean(1)
    means = (2 * a.mean(1) * b.mean(1) + c1) / (a.mean(1) ** 2 + b.mean(1) ** 2 + c1)
    return float((means * (2 * covariance + c2) / (a.var(1) + b.var(1) + c2)).mean())


FORMATS = {
    "jpeg": ("JPEG", {"quality": 92}),
    "progressive jpeg": ("JPEG", {"quality": 92, "progressive": True}),
    "png": ("PNG", {"compress_level": 1}),
    "webp": ("WEBP", {"quality": 92, "method": 0}),
    "tiff": ("TIFF", {}),
    "bmp": ("BMP", {}),
    "avif": ("AVIF", {"quality": 90, "speed": 10}),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_looks_as_pillow_s_own_resize_of_it(name, kind):
    picture = photograph(name)
    fmt, options = FORMATS[kind]
    data = encode(picture, fmt, **options)
    out = bring(data)
    expected = pixels(resized(picture))
    assert (out.width, out.height) == target_size(*picture.size, BUDGET)
    assert difference(pixels(out.data), expected) < JUST_VISIBLE
    assert ssim(pixels(out.data), expected) > LEAST_SSIM


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_photograph_held_in_any_way_comes_out_upright(orientation):
    upright = photograph("coffee.png").resize((1200, 800))
    stored = upright.transpose(BACK[orientation])
    out = bring(encode(stored, "JPEG", quality=92, **with_orientation(orientation)))
    assert (out.width, out.height) == target_size(1200, 800, BUDGET)
    assert difference(pixels(out.data), pixels(resized(upright))) < JUST_VISIBLE


@pytest.mark.parametrize("seed", range(3))
def test_twelve_megapixels_keep_what_can_be_seen(seed):
    data = twelve_megapixels(seed)
    assert 2_500_000 < len(data) < 5_500_000
    out = bring(data)
    expected = resized(Image.open(io.BytesIO(data)))
    assert (out.width, out.height) == target_size(4000, 3000, BUDGET)
    assert difference(pixels(out.data), pixels(expected)) < JUST_VISIBLE
    assert ssim(pixels(out.data), pixels(expected)) > LEAST_SSIM
    assert len(out.data) < 150_000


def test_a_page_of_text_stays_legible():
    """Small pages keep their pixels; a scan at twice the budget loses no stroke that Pillow keeps."""
    page = photograph("page.png")
    assert np.abs(pixels(bring(encode(page, "PNG")).data) - pixels(page)).max() <= 8
    scan = page.resize((page.width * 3, page.height * 3), Image.Resampling.BICUBIC)
    out = bring(encode(scan, "PNG"))
    assert ssim(pixels(out.data), pixels(resized(scan))) > 0.97
