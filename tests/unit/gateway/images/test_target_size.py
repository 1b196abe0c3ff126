"""Properties of the size arithmetic, and its agreement with Qwen's own."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.images import Encoded, target_size
from gateway.images.shrink import GRID

sides = st.integers(1, 20_000)
budgets = st.integers(GRID * GRID, 1 << 24)


def smart_resize(height: int, width: int, max_pixels: int, factor: int = 32) -> tuple[int, int]:
    """transformers 4.57, models/qwen2_vl/image_processing_qwen2_vl.py, without the minimum."""
    h_bar = round(height / factor) * factor
    w_bar = round(width / factor) * factor
    if h_bar * w_bar > max_pixels:
        beta = math.sqrt((height * width) / max_pixels)
        h_bar = max(factor, math.floor(height / beta / factor) * factor)
        w_bar = max(factor, math.floor(width / beta / factor) * factor)
    return h_bar, w_bar


def as_the_engine_rounds(side: int) -> int:
    return max(GRID, round(side / GRID) * GRID)


@given(sides, sides, budgets)
@example(20_000, 100, 1024)
@example(47, 49, 1024)
@example(4000, 20, 65536)
@example(1, 48, 1024)
def test_the_engine_never_gets_more_than_the_budget(width, height, max_pixels):
    w, h = target_size(width, height, max_pixels)
    assert w * h <= max_pixels
    assert as_the_engine_rounds(w) * as_the_engine_rounds(h) <= max_pixels


@given(sides, sides, budgets)
def test_no_side_grows(width, height, max_pixels):
    w, h = target_size(width, height, max_pixels)
    assert 1 <= w <= width
    assert 1 <= h <= height


@given(sides, sides, st.integers(0, 100_000))
def test_what_fits_is_left_alone(width, height, spare):
    max_pixels = max(width * height, as_the_engine_rounds(width) * as_the_engine_rounds(height)) + spare
    assert target_size(width, height, max_pixels) == (width, height)


@given(sides, sides, budgets)
def test_a_second_time_changes_nothing(width, height, max_pixels):
    once = target_size(width, height, max_pixels)
    assert target_size(*once, max_pixels) == once


@given(sides, sides, budgets)
def test_turning_the_picture_turns_the_size(width, height, max_pixels):
    assert target_size(height, width, max_pixels) == target_size(width, height, max_pixels)[::-1]


@given(st.integers(32, 20_000), st.integers(32, 20_000), st.integers(64 * 1024, 1 << 24))
def test_a_larger_picture_gets_the_size_qwen_would_choose(width, height, max_pixels):
    qwen_h, qwen_w = smart_resize(height, width, max_pixels)
    shrunk = as_the_engine_rounds(width) * as_the_engine_rounds(height) > max_pixels
    # Qwen's own exceeds its budget for extreme ratios, and enlarges a side when only the rounding is over; ours does not.
    if shrunk and qwen_w * qwen_h <= max_pixels and width * height > max_pixels:
        assert target_size(width, height, max_pixels) == (qwen_w, qwen_h)


@given(st.integers(256, 5_000), st.floats(1, 4), st.integers(512 * 512, 1 << 24))
def test_the_aspect_ratio_is_kept_to_the_grid(height, ratio, max_pixels):
    width = int(height * ratio)
    w, h = target_size(width, height, max_pixels)
    assert abs(w / width - h / height) <= GRID / min(width, height) + GRID / max(width, height)


@pytest.mark.parametrize(
    ("size", "becomes", "tokens"),
    [
        ((4000, 3000), (576, 416), 234),
        ((3000, 4000), (416, 576), 234),
        ((512, 512), (512, 512), 256),
        ((500, 500), (500, 500), 256),
        ((527, 495), (527, 495), 240),
        ((528, 528), (512, 512), 256),
        ((1920, 1080), (672, 384), 252),
        ((1, 1), (1, 1), 1),
        ((6400, 32), (6400, 32), 200),
        ((12800, 64), (7232, 32), 226),
    ],
)
def test_sizes_at_the_default_budget(size, becomes, tokens):
    assert target_size(*size, 512 * 512) == becomes
    assert Encoded(b"", "image/png", *becomes).tokens == tokens


@pytest.mark.parametrize(("width", "height", "max_pixels"), [(0, 1, 1024), (1, 0, 1024), (1, 1, 1023)])
def test_impossible_arguments_are_the_callers_fault(width, height, max_pixels):
    with pytest.raises(ValueError, match="at least"):
        target_size(width, height, max_pixels)
