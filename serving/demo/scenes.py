"""The toy shop's catalogue pictures: what is in one, and how it is drawn.

Pure and seeded: a seed gives one scene and a scene one picture, on every machine and in every run. The same
module feeds training, the evaluation, the tests and the load tests; it must import with numpy-free, torch-free
Python (Pillow only). It decides nothing about questions.

A picture shows one to three products, in a row or in a column: each pair of neighbours overlaps across the
direction of reading, so that the reading order (left to right in a row, top to bottom in a column) is plain to see.
Its sides measure 128 to 512 px, and the direction in which products stand gives each of them at least 96 px.
"""

from __future__ import annotations

import functools
import io
import itertools
import random
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image, ImageFilter

from serving.demo import wardrobe

PRODUCTS: Final = tuple(wardrobe.ASPECTS)
COLOURS: Final = tuple(wardrobe.SHADES)
PATTERNS: Final = wardrobe.PATTERNS

MIN_SIDE_PX: Final = 128
MAX_SIDE_PX: Final = 512
MIN_SLOT_PX: Final = 96
MAX_TILT_DEGREES: Final = 25.0
MAX_PRODUCTS: Final = 3
UNSEEN_SEED: Final = 1_000_000_000
"""Seeds from here on are never trained on; evaluation, tests and load tests take theirs from there."""

_CLEARLY_OBLONG: Final = 1.3

Layout = Literal["row", "column"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Item:
    """One product in a picture."""

    product: str
    colour: str
    pattern: str
    box: Box
    """Left, top, right, bottom in px, around the turned product; inside the picture."""
    rotation: float
    """Degrees, counter-clockwise."""
    style: int = 0
    """Seeds the exact shade and the pattern's direction and pitch."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture: everything that is needed to draw it and to answer questions about it."""

    size: tuple[int, int]
    """Width and height in px."""
    background: tuple[int, int, int]
    """sRGB at the top; the picture darkens a little towards the bottom."""
    items: tuple[Item, ...]
    """In reading order."""
    jpeg_quality: int
    layout: Layout = "row"


def _size(count: int, dice: random.Random) -> tuple[tuple[int, int], Layout]:
    """Choose the picture's sides and the direction in which `count` products stand."""
    along = dice.randint(max(MIN_SIDE_PX, MIN_SLOT_PX * count), MAX_SIDE_PX)
    across = dice.randint(MIN_SIDE_PX, MAX_SIDE_PX)
    if count > 1 and across > along * _CLEARLY_OBLONG:
        across, along = along, across
    return ((along, across), "row") if dice.random() < 0.5 else ((across, along), "column")  # noqa: PLR2004


def _cuts(count: int, length: int, dice: random.Random) -> list[tuple[float, float]]:
    """Split `length` px into one slot a product, each within 15 % of its fair share."""
    shares = [dice.uniform(0.85, 1.15) for _ in range(count)]
    scale = length / sum(shares)
    edges = [sum(shares[:index]) * scale for index in range(count + 1)]
    return list(itertools.pairwise(edges))


def _place(slot: tuple[float, float], depth: int, line: float, item: Item, dice: random.Random, layout: Layout) -> Item:
    """Fit a product into its slot, near the line that the row (or column) shares.

    `slot` and `depth` are px along and across the direction of reading; `line` is where, from 0 to 1 across it.
    """
    wide, high = wardrobe.extent(item.product, item.rotation)
    room = slot[1] - slot[0]
    room_x, room_y = (room, depth) if layout == "row" else (depth, room)
    scale = min((room_x - 4) / wide, (room_y - 4) / high)
    if depth > room:
        scale *= dice.uniform(0.8, 1.0)
    else:
        scale *= dice.uniform(0.62, 1.0)
    width, height = scale * wide, scale * high
    length, thickness = (width, height) if layout == "row" else (height, width)
    start = slot[0] + (room - length) * dice.random()
    wander = dice.uniform(-0.2, 0.2) * thickness
    rest = min(max((depth - thickness) * line + wander, 0.0), depth - thickness)
    left, top = (start, rest) if layout == "row" else (rest, start)
    box = (int(left), int(top), int(left + width), int(top + height))
    return Item(item.product, item.colour, item.pattern, box, item.rotation, item.style)


def scene(seed: int, products: int | None = None) -> Scene:
    """Compose the picture that belongs to `seed`, with one to three products (`products` fixes how many)."""
    if products is not None and not 1 <= products <= MAX_PRODUCTS:
        message = (
            f"a picture shows 1 to {MAX_PRODUCTS} products, not {products}: pass products=None to let the seed choose"
        )
        raise ValueError(message)
    dice = random.Random(f"{seed}/{products}")  # noqa: S311 - drawings, not secrets
    count = products if products is not None else dice.randint(1, MAX_PRODUCTS)
    (width, height), layout = _size(count, dice)
    length, depth = (width, height) if layout == "row" else (height, width)
    line = dice.random()
    items = []
    for slot in _cuts(count, length, dice):
        item = Item(
            product=dice.choice(PRODUCTS),
            colour=dice.choice(COLOURS),
            pattern=dice.choice(PATTERNS),
            box=(0, 0, 0, 0),
            rotation=round(dice.uniform(-MAX_TILT_DEGREES, MAX_TILT_DEGREES), 1),
            style=dice.randrange(1 << 30),
        )
        items.append(_place(slot, depth, line, item, dice, layout))
    shade = dice.randint(150, 246)
    background = (
        min(255, shade + dice.randint(-8, 8)),
        min(255, shade + dice.randint(-8, 8)),
        min(255, shade + dice.randint(-8, 8)),
    )
    return Scene((width, height), background, tuple(items), dice.randint(45, 95), layout)


@functools.lru_cache(maxsize=2 * MAX_PRODUCTS)
def layer(item: Item) -> Image.Image:
    """Draw one product, turned, as an RGBA image of exactly its box's size; do not change the image, it is kept."""
    size = (item.box[2] - item.box[0], item.box[3] - item.box[1])
    return wardrobe.tile(item.product, item.colour, item.pattern, size, item.rotation, item.style)


def draw(picture: Scene) -> Image.Image:
    """Draw the scene as an RGB image of `picture.size`."""
    width, height = picture.size
    foot = tuple(round(channel * 0.88) for channel in picture.background)
    ramp = Image.linear_gradient("L").resize((width, height))
    image = Image.composite(
        Image.new("RGB", (width, height), foot), Image.new("RGB", (width, height), picture.background), ramp
    )
    for item in picture.items:
        cut = layer(item)
        mask = cut.getchannel("A")
        drop = max(1, round(0.02 * min(cut.size)))
        shadow = mask.point(lambda alpha: alpha // 4).filter(ImageFilter.BoxBlur(drop))
        image.paste((20, 20, 24), (item.box[0] + drop, item.box[1] + drop), shadow)
        image.paste(cut.convert("RGB"), item.box[:2], mask)
    return image


def jpeg(picture: Scene) -> bytes:
    """Draw the scene and compress it at its own JPEG quality."""
    buffer = io.BytesIO()
    draw(picture).save(buffer, "JPEG", quality=picture.jpeg_quality)
    return buffer.getvalue()
