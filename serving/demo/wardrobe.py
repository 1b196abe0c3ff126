"""Draws one catalogue product: a silhouette, filled with a colour and a pattern, on a transparent tile.

Pure: the same arguments give the same pixels. It knows nothing of pictures, places or questions.
Shapes are given in a unit square (x to the right, y down), turned point by point, drawn at twice the size asked for
and reduced, so that edges come out smooth.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageDraw

from serving.demo.silhouettes import OUTLINES, curve, handle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Point = tuple[float, float]
    Rgb = tuple[int, int, int]
    Canvas = ImageDraw.ImageDraw

SUPERSAMPLE: Final = 2
"""Tiles are drawn this many times larger than they are shown."""

ASPECTS: Final[dict[str, float]] = {
    "dress": 0.74,
    "shirt": 1.05,
    "trousers": 0.68,
    "bag": 0.92,
    "shoe": 1.55,
    "hat": 1.5,
}
"""Width over height of each product's upright box."""

SHADES: Final[dict[str, Rgb]] = {
    "red": (206, 36, 44),
    "orange": (243, 130, 28),
    "yellow": (246, 208, 50),
    "green": (44, 146, 70),
    "blue": (42, 92, 198),
    "purple": (126, 58, 168),
    "pink": (246, 152, 188),
    "black": (36, 36, 42),
}
"""sRGB in the middle of each colour's range; a product's own shade lies a little around it."""

PATTERNS: Final = ("plain", "striped", "dotted", "floral")

_CREAM: Final = (250, 246, 236)
_TURN: Final = 2 * math.pi


def _blend(one: Rgb, other: Rgb, share: float) -> Rgb:
    """Mix two colours; `share` (0 to 1) is that of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


class _Pen:
    """Draws a turned product's shapes: from unit-square or upright pixel coordinates to the tile's."""

    def __init__(self, canvas: Canvas, tile: tuple[int, int], upright: tuple[float, float], rotation: float) -> None:
        self.canvas = canvas
        self.width, self.height = upright
        self.middle = ((tile[0] - 1) / 2, (tile[1] - 1) / 2)
        self.cos, self.sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))

    def at(self, x: float, y: float) -> Point:
        """Turn a point, in pixels from the upright product's top left, about the middle."""
        x, y = x - self.width / 2, y - self.height / 2
        return self.middle[0] + x * self.cos + y * self.sin, self.middle[1] - x * self.sin + y * self.cos

    def _points(self, points: Sequence[Point]) -> list[Point]:
        return [self.at(x * self.width, y * self.height) for x, y in points]

    def fill(self, points: Sequence[Point], ink: Rgb | int) -> None:
        self.canvas.polygon(self._points(points), fill=ink)

    def line(self, points: Sequence[Point], ink: Rgb | int, weight: float = 0.014) -> None:
        """Draw a line; `weight` is a share of the product's shorter side."""
        width = max(1, round(weight * min(self.width, self.height)))
        self.canvas.line(self._points(points), fill=ink, width=width, joint="curve")

    def disc(self, centre: Point, radius: float, ink: Rgb) -> None:
        """Draw a disc; centre and radius in pixels."""
        x, y = self.at(*centre)
        self.canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _details(pen: _Pen, product: str, dark: Rgb, base: Rgb) -> None:
    """Add the seams, bands and soles that make a silhouette read as a product."""
    match product:
        case "dress":
            pen.fill([(0.335, 0.41), (0.665, 0.41), (0.672, 0.46), (0.328, 0.46)], dark)
        case "shirt":
            pen.line([(0.36, 0.05), (0.5, 0.2), (0.64, 0.05)], dark, 0.03)
            pen.line([(0.5, 0.2), (0.5, 0.96)], dark, 0.012)
            pen.line([(0.23, 0.24), (0.23, 0.44)], dark)
            pen.line([(0.77, 0.24), (0.77, 0.44)], dark)
        case "trousers":
            pen.fill([(0.17, 0.02), (0.83, 0.02), (0.845, 0.09), (0.155, 0.09)], dark)
            pen.line([(0.5, 0.09), (0.5, 0.36)], dark, 0.016)
        case "bag":
            pen.line([(0.09, 0.5), (0.5, 0.62), (0.91, 0.5)], dark, 0.016)
            pen.fill([(0.46, 0.57), (0.54, 0.57), (0.54, 0.67), (0.46, 0.67)], _CREAM)
        case "shoe":
            pen.fill(
                [(0.02, 0.84), (0.98, 0.84), *curve((0.98, 0.84), (0.99, 0.97), (0.93, 0.97)), (0.05, 0.97)], _CREAM
            )
            for x, y in ((0.42, 0.24), (0.48, 0.35), (0.55, 0.43)):
                pen.line([(x, y), (x - 0.075, y + 0.12)], _CREAM, 0.035)
        case _:
            pen.fill([(0.229, 0.58), (0.771, 0.58), (0.779, 0.74), (0.221, 0.74)], _blend(dark, base, 0.2))


def _striped(pen: _Pen, ink: Rgb, unit: float, dice: random.Random) -> None:
    period = unit * dice.uniform(0.13, 0.2)
    angle = dice.choice((0.0, math.pi / 2, math.pi / 4, -math.pi / 4))
    reach = math.hypot(pen.width, pen.height)
    across, along = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    middle = (pen.width / 2, pen.height / 2)
    count = math.ceil(reach / period)
    offset = dice.random()
    for index in range(-count, count + 1):
        shift = (index + offset) * period
        x, y = middle[0] + across[0] * shift, middle[1] + across[1] * shift
        ends = [(x - along[0] * reach, y - along[1] * reach), (x + along[0] * reach, y + along[1] * reach)]
        pen.canvas.line([pen.at(*end) for end in ends], fill=ink, width=max(1, round(period * 0.45)))


def _grid(pen: _Pen, pitch: float, dice: random.Random) -> list[Point]:
    """Give the centres of a staggered grid covering the tile."""
    left, top = dice.random() * pitch, dice.random() * pitch
    row_pitch = pitch * 0.87
    rows, columns = math.ceil(pen.height / row_pitch) + 1, math.ceil(pen.width / pitch) + 2
    return [
        (left + (column - 1 + row % 2 / 2) * pitch, top + (row - 1) * row_pitch + pitch / 2)
        for row in range(rows)
        for column in range(columns)
    ]


def _dotted(pen: _Pen, ink: Rgb, unit: float, dice: random.Random) -> None:
    pitch = unit * dice.uniform(0.17, 0.24)
    radius = pitch * dice.uniform(0.23, 0.29)
    for centre in _grid(pen, pitch, dice):
        pen.disc(centre, radius, ink)


def _floral(pen: _Pen, ink: Rgb, unit: float, dice: random.Random) -> None:
    pitch = unit * dice.uniform(0.3, 0.38)
    petal = pitch * dice.uniform(0.14, 0.17)
    heart = (238, 196, 64) if ink == _CREAM else _CREAM
    for x, y in _grid(pen, pitch, dice):
        turn = dice.random() * _TURN
        for leaf in range(5):
            angle = turn + leaf * _TURN / 5
            pen.disc((x + 1.35 * petal * math.cos(angle), y + 1.35 * petal * math.sin(angle)), petal, ink)
        pen.disc((x, y), petal * 0.8, heart)


_PATTERNS: Final[dict[str, Callable[[_Pen, Rgb, float, random.Random], None]]] = {
    "striped": _striped,
    "dotted": _dotted,
    "floral": _floral,
}


def extent(product: str, rotation: float) -> Point:
    """Width and height around a turned product that is 1 high when upright; `rotation` in degrees."""
    turn = math.radians(abs(rotation))
    wide = ASPECTS[product]
    return wide * math.cos(turn) + math.sin(turn), wide * math.sin(turn) + math.cos(turn)


def tile(product: str, colour: str, pattern: str, size: tuple[int, int], rotation: float, style: int) -> Image.Image:
    """Draw a product, turned counter-clockwise by `rotation` degrees, as an RGBA image of `size` that it just fits.

    `style` seeds what the names leave open: the exact shade, the pattern's ink, direction and pitch.
    """
    dice = random.Random(style)  # noqa: S311 - a drawing's variety, not a secret
    big = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
    wide, high = extent(product, rotation)
    tall = min(big[0] / wide, big[1] / high)
    upright = (tall * ASPECTS[product], tall)
    shade = SHADES[colour]
    base = _blend(shade, dice.choice(((255, 255, 255), (0, 0, 0))), dice.uniform(0.0, 0.1))
    dark = _blend(base, (0, 0, 0), 0.32) if colour != "black" else (84, 84, 92)
    tone = _blend(base, (0, 0, 0), 0.5) if colour in {"yellow", "pink", "orange"} else _CREAM
    ink = dice.choice((_CREAM, tone))

    cloth = Image.new("RGB", big, base)
    pen = _Pen(ImageDraw.Draw(cloth), big, upright, rotation)
    if pattern in _PATTERNS:
        _PATTERNS[pattern](pen, ink, math.sqrt(upright[0] * upright[1]), dice)
    _details(pen, product, dark, base)

    mask = Image.new("L", big, 0)
    outline = _Pen(ImageDraw.Draw(mask), big, upright, rotation)
    for shape in OUTLINES[product]:
        outline.fill(shape, 255)
        pen.line([*shape, shape[0]], dark, 0.02)
    if product == "shoe":
        outline.fill([(0.02, 0.8), (0.98, 0.8), *curve((0.98, 0.84), (0.99, 0.97), (0.93, 0.97)), (0.05, 0.97)], 255)
    if product == "bag":
        strap = Image.new("L", big, 0)
        _Pen(ImageDraw.Draw(strap), big, upright, rotation).line(handle(), 255, 0.07)
        cloth.paste(dark, (0, 0), ImageChops.subtract(strap, mask))
        mask = ImageChops.lighter(mask, strap)
    cloth.putalpha(mask)
    return cloth.reduce(SUPERSAMPLE)
