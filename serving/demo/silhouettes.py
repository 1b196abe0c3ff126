"""The products' outlines, in a unit square: x to the right, y down. Shapes only; `wardrobe` fills and turns them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    Point = tuple[float, float]

_TURN: Final = 2 * math.pi


def curve(start: Point, control: Point, end: Point, steps: int = 10) -> list[Point]:
    """Points on the quadratic Bezier curve from `start` to `end`."""
    points = []
    for step in range(steps + 1):
        t = step / steps
        points.append(
            (
                (1 - t) ** 2 * start[0] + 2 * t * (1 - t) * control[0] + t * t * end[0],
                (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * control[1] + t * t * end[1],
            )
        )
    return points


def _mirrored(half: Sequence[Point]) -> list[Point]:
    """Close an outline whose right half is given from top to bottom."""
    return [*half, *((1 - x, y) for x, y in reversed(half))]


OUTLINES: Final[dict[str, list[list[Point]]]] = {
    "dress": [
        _mirrored(
            [
                *curve((0.5, 0.19), (0.57, 0.18), (0.62, 0.02)),
                (0.69, 0.02),
                *curve((0.71, 0.16), (0.74, 0.3), (0.66, 0.43)),
                *curve((0.68, 0.5), (0.86, 0.74), (0.97, 0.93)),
                *curve((0.97, 0.93), (0.75, 0.99), (0.5, 0.99)),
            ]
        )
    ],
    "shirt": [
        _mirrored(
            [
                *curve((0.5, 0.17), (0.59, 0.16), (0.64, 0.05)),
                *curve((0.64, 0.05), (0.76, 0.08), (0.82, 0.14)),
                (0.99, 0.43),
                (0.84, 0.53),
                (0.77, 0.42),
                *curve((0.77, 0.42), (0.74, 0.7), (0.77, 0.97)),
                (0.5, 0.97),
            ]
        )
    ],
    "trousers": [
        _mirrored(
            [(0.5, 0.02), (0.83, 0.02), *curve((0.83, 0.02), (0.96, 0.4), (0.98, 0.98)), (0.62, 0.98), (0.5, 0.36)]
        )
    ],
    "bag": [
        _mirrored(
            [
                (0.5, 0.36),
                (0.84, 0.36),
                *curve((0.84, 0.36), (0.9, 0.36), (0.91, 0.42)),
                *curve((0.98, 0.9), (0.99, 0.98), (0.9, 0.98)),
                (0.5, 0.98),
            ]
        )
    ],
    "shoe": [
        [
            (0.05, 0.1),
            *curve((0.05, 0.1), (0.2, 0.2), (0.34, 0.05)),
            *curve((0.4, 0.16), (0.52, 0.5), (0.74, 0.54)),
            *curve((0.74, 0.54), (0.98, 0.58), (0.98, 0.84)),
            (0.03, 0.84),
            *curve((0.03, 0.84), (0.0, 0.5), (0.05, 0.1)),
        ]
    ],
    "hat": [
        [(0.5 + 0.49 * math.cos(t * _TURN / 48), 0.76 + 0.22 * math.sin(t * _TURN / 48)) for t in range(48)],
        [
            (0.22, 0.76),
            *curve((0.25, 0.1), (0.28, 0.02), (0.5, 0.08)),
            *curve((0.5, 0.08), (0.72, 0.02), (0.75, 0.1)),
            (0.78, 0.76),
        ],
    ],
}


def handle() -> list[Point]:
    """Give the points of a bag's handle."""
    return [(0.5 + 0.25 * math.cos(t * math.pi / 20), 0.38 - 0.33 * math.sin(t * math.pi / 20)) for t in range(21)]
