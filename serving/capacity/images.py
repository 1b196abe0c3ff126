"""Picture -> visual tokens, exactly as the engine counts them. Pure.

transformers/models/qwen2_vl/image_processing_qwen2_vl.py (smart_resize) brings both sides to multiples of the cell and
the area between two bounds; vLLM counts the cells (model_executor/models/qwen3_vl.py: _get_vision_info).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.capacity.model import Vision

MIN_PIXELS = 65_536
MAX_PIXELS = 16_777_216
"""Qwen3-VL's own preprocessor_config.json: size.shortest_edge and size.longest_edge, which are areas in spite of their
names. A profile lowers the second with mm-processor-kwargs."""

MAX_ASPECT = 200
"""smart_resize refuses longer pictures."""


class SizeError(ValueError):
    """A size cannot be a picture's."""


@dataclass(frozen=True)
class Size:
    """Width and height in pixels."""

    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if min(self.width_px, self.height_px) < 1:
            raise SizeError(f"{self}: a picture has at least one pixel")
        if max(self.width_px, self.height_px) > MAX_ASPECT * min(self.width_px, self.height_px):
            raise SizeError(f"{self}: Qwen3-VL takes no picture that is more than {MAX_ASPECT} times as long as wide")

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"

    @property
    def pixels(self) -> int:
        """Its area."""
        return self.width_px * self.height_px


def parse_size(text: str) -> Size:
    """Read `1920x1080`, or an area in pixels, for which a square stands. Raises SizeError."""
    width, cross, height = text.lower().partition("x")
    try:
        if cross:
            return Size(int(width), int(height))
        side_px = math.isqrt(int(text))
    except ValueError as exc:
        if isinstance(exc, SizeError):
            raise
        raise SizeError(f"{text!r} is no picture: give an area in pixels (262144) or a size (1920x1080)") from exc
    return Size(side_px, side_px)


def resized(size: Size, vision: Vision, max_pixels: int = MAX_PIXELS, min_pixels: int = MIN_PIXELS) -> Size:
    """Return the size that the model sees: smart_resize with factor `cell_px`, rounding halves to even as it does."""
    cell = vision.cell_px
    height = round(size.height_px / cell) * cell
    width = round(size.width_px / cell) * cell
    if height * width > max_pixels:
        shrink = math.sqrt(size.pixels / max_pixels)
        height = max(cell, math.floor(size.height_px / shrink / cell) * cell)
        width = max(cell, math.floor(size.width_px / shrink / cell) * cell)
    elif height * width < min_pixels:
        grow = math.sqrt(min_pixels / size.pixels)
        height = math.ceil(size.height_px * grow / cell) * cell
        width = math.ceil(size.width_px * grow / cell) * cell
    return Size(width, height)


def tokens(size: Size, vision: Vision, max_pixels: int = MAX_PIXELS, min_pixels: int = MIN_PIXELS) -> int:
    """Count the visual tokens of a picture; the two marks around it are not among them."""
    return resized(size, vision, max_pixels, min_pixels).pixels // vision.cell_px**2


def most_tokens(vision: Vision, max_pixels: int = MAX_PIXELS) -> int:
    """Count the visual tokens of the picture that vLLM profiles with.

    model_executor/models/qwen2_vl.py: get_image_size_with_most_features looks for the largest number of cells whose
    most square factors are no longer than 200:1, then resizes a picture of that shape.
    """
    for cells in range(max_pixels // vision.cell_px**2, 0, -1):
        rows = next(side for side in range(math.isqrt(cells), 0, -1) if cells % side == 0)
        if cells // rows <= MAX_ASPECT * rows:
            return tokens(Size(cells // rows * vision.cell_px, rows * vision.cell_px), vision, max_pixels)
    raise SizeError(f"{max_pixels} pixels are less than one visual token of {vision.cell_px}x{vision.cell_px}")
