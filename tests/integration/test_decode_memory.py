"""The price of a picture is an upper bound of the memory that decoding it takes, for the largest that are let in."""

from __future__ import annotations

import pytest

from gateway.images import ImageRefused, inspect
from gateway.images.inspect import MAX_DECODE_BYTES
from loadtest.images.formats import LAYOUTS, cost

BUDGET = 512 * 512
LARGEST = {
    "JPEG": (8164, 6123),
    "JPEG, progressive 4:4:4": (4032, 3024),
    "JPEG, progressive CMYK": (3136, 2352),
    "PNG, 16 bits with alpha": (7200, 5400),
    "PNG, interlaced, 16 bits with alpha": (3300, 2475),
    "WebP, lossless with alpha": (4400, 3300),
    "GIF": (4032, 3024),
    "TIFF, 16 bits with alpha": (7200, 5400),
    "TIFF, bands apart, 16 bits with alpha": (2800, 2100),
    "BMP": (2992, 2244),
    "AVIF, 4:4:4 with alpha": (2016, 1512),
}
"""4:3, a little below what their price or, for JPEG, their pixels allow; BMP of 20 MiB, which is all of a picture."""


@pytest.mark.parametrize("layout", LARGEST)
def test_the_price_bounds_what_the_largest_picture_takes(layout):
    picture = LAYOUTS[layout](*LARGEST[layout])
    found = cost(picture)
    assert found.peak <= found.price <= MAX_DECODE_BYTES
    if layout not in {"JPEG", "BMP"}:
        assert found.price > MAX_DECODE_BYTES * 0.85


def test_what_costs_more_is_refused_by_its_header_and_told_how_to_get_in():
    picture = LAYOUTS["AVIF"](2600, 1950)
    with pytest.raises(ImageRefused) as caught:
        inspect(picture, max_pixels=50_000_000, budget_pixels=BUDGET)
    assert caught.value.reason == "image_too_large"
    assert str(caught.value) == (
        "decoding this AVIF of 2600x1950 takes up to 106 MiB of memory, at most 80 are allowed (the service's "
        "GATEWAY_IMAGE_MAX_DECODE_BYTES): send a smaller one, or a baseline JPEG"
    )
    assert inspect(picture, max_pixels=50_000_000, max_decode_bytes=200 << 20).width == 2600


@pytest.mark.parametrize("layout", ["TIFF", "TIFF, one strip", "TIFF, tiles", "TIFF, bands apart"])
def test_only_a_tiff_that_is_read_by_rows_is_priced_by_rows(layout):
    small = inspect(LAYOUTS[layout](2000, 3000), max_pixels=50_000_000)
    large = inspect(LAYOUTS[layout](2000, 6000), max_pixels=50_000_000)
    assert (small.decode_bytes == large.decode_bytes) is (layout in {"TIFF", "TIFF, one strip"})
