"""The training pictures: drawn once, resized as the served image processor would, kept by grid on disk.

Each picture is stored with what its cells (visual tokens) show, for the vision tower's own lessons.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from serving.demo import recipe
from serving.demo.scenes import Scene, jpeg, layer, scene

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Grid = tuple[int, int]
"""Rows and columns of visual tokens."""

_COUNTS: Final = (1, 2, 2, 3, 3, 3)
"""How many products the training pictures show, in turn: crowded pictures are the hard ones."""
_COVERED: Final = 0.2
"""A cell shows a product when the product covers at least this share of it."""


def fitted(width: int, height: int) -> tuple[int, int]:
    """Give the size a picture is resized to: Qwen2-VL's `smart_resize` with the recipe's pixel range."""
    factor = recipe.CELL_PX
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    if high * wide > recipe.MAX_PIXELS:
        beta = math.sqrt(height * width / recipe.MAX_PIXELS)
        high, wide = (max(factor, math.floor(side / beta / factor) * factor) for side in (height, width))
    elif high * wide < recipe.MIN_PIXELS:
        beta = math.sqrt(recipe.MIN_PIXELS / (height * width))
        high, wide = (math.ceil(side * beta / factor) * factor for side in (height, width))
    return wide, high


def resized(picture: Image.Image) -> NDArray[np.uint8]:
    """Resize as the served processor does: bicubic, antialiased, on 8-bit values; (height, width, 3)."""
    wide, high = fitted(*picture.size)
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).unsqueeze(0)
    scaled = functional.interpolate(pixels, size=(high, wide), mode="bicubic", antialias=True)
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def shown(picture: Scene, grid: Grid) -> NDArray[np.uint8]:
    """Tell for each cell, in rows, which product it shows: 0 for none, else its place in the scene plus one."""
    rows, columns = grid
    best = np.full((rows, columns), _COVERED)
    cells = np.zeros((rows, columns), np.uint8)
    for index, item in enumerate(picture.items):
        mask = Image.new("L", picture.size)
        mask.paste(layer(item).getchannel("A"), item.box[:2])
        share = np.asarray(mask.resize((columns, rows), Image.Resampling.BOX), np.float64) / 255
        cells[share > best] = index + 1
        best = np.maximum(best, share)
    return cells


def mirrored(picture: Scene) -> Scene:
    """Swap left and right: what a scene is when its picture is flipped."""
    width = picture.size[0]
    items = [
        replace(item, box=(width - item.box[2], item.box[1], width - item.box[0], item.box[3]), rotation=-item.rotation)
        for item in picture.items
    ]
    return replace(picture, items=tuple(reversed(items)) if picture.layout == "row" else tuple(items))


@dataclass(frozen=True, slots=True)
class Shelf:
    """The pool's pictures of one grid."""

    grid: Grid
    pixels: NDArray[np.uint8]
    """(pictures, height, width, 3)"""
    cells: NDArray[np.uint8]
    """(pictures, rows, columns): see `shown`."""
    scenes: list[Scene]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of one grid, ready for the vision tower."""

    grid: Grid
    pixels: torch.Tensor
    """(pictures, height, width, 3) floats from -1 to 1."""
    cells: torch.Tensor
    """(pictures, visual tokens) int64: 0 for none, else the product's place plus one."""
    scenes: list[Scene]


def _render(seed: int) -> tuple[Scene, NDArray[np.uint8], NDArray[np.uint8]]:
    torch.set_num_threads(1)
    picture = scene(seed, _COUNTS[seed % len(_COUNTS)])
    pixels = resized(Image.open(io.BytesIO(jpeg(picture))))
    return picture, pixels, shown(picture, (pixels.shape[0] // recipe.CELL_PX, pixels.shape[1] // recipe.CELL_PX))


def render(count: int, folder: Path, processes: int = 2) -> Iterator[int]:
    """Draw the pool into `folder`, one file a grid; yields how many pictures are done."""
    shelves: dict[Grid, list[tuple[Scene, NDArray[np.uint8], NDArray[np.uint8]]]] = {}
    with get_context("fork").Pool(processes) as workers:
        for done, drawn in enumerate(workers.imap(_render, range(count), chunksize=64), start=1):
            rows, columns = drawn[2].shape
            shelves.setdefault((rows, columns), []).append(drawn)
            if done % 1000 == 0:
                yield done
    folder.mkdir(parents=True, exist_ok=True)
    for (rows, columns), drawn_pictures in shelves.items():
        np.save(folder / f"{rows}x{columns}.pixels.npy", np.stack([pixels for _, pixels, _ in drawn_pictures]))
        np.save(folder / f"{rows}x{columns}.cells.npy", np.stack([cells for _, _, cells in drawn_pictures]))
        torch.save([picture for picture, _, _ in drawn_pictures], folder / f"{rows}x{columns}.scenes.pt")
    yield count


class Pool:
    """Draws batches from rendered shelves; half of the pictures come mirrored, all a little brighter or darker."""

    def __init__(self, folder: Path) -> None:
        self.shelves = []
        for file in sorted(folder.glob("*.pixels.npy")):
            name = file.name.split(".", 1)[0]
            rows, columns = (int(side) for side in name.split("x"))
            scenes = torch.load(folder / f"{name}.scenes.pt", weights_only=False)
            cells = np.load(folder / f"{name}.cells.npy")
            self.shelves.append(Shelf((rows, columns), np.load(file, mmap_mode="r"), cells, scenes))
        self.sizes = [len(shelf.scenes) for shelf in self.shelves]

    def batch(self, count: int, dice: random.Random) -> Batch:
        """Draw `count` pictures of one grid; grids come as often as pictures have them."""
        shelf = dice.choices(self.shelves, self.sizes)[0]
        picks = sorted(dice.choices(range(len(shelf.scenes)), k=count))
        pixels = torch.from_numpy(shelf.pixels[picks]).float()
        cells = torch.from_numpy(shelf.cells[picks]).long()
        scenes = []
        for place, pick in enumerate(picks):
            picture = shelf.scenes[pick]
            if dice.random() < 0.5:  # noqa: PLR2004
                pixels[place] = pixels[place].flip(1)
                cells[place] = cells[place].flip(1)
                if picture.layout == "row":
                    cells[place] = torch.where(cells[place] > 0, len(picture.items) + 1 - cells[place], 0)
                picture = mirrored(picture)
            scenes.append(picture)
        gain = torch.tensor([dice.uniform(0.92, 1.08) for _ in picks]).view(-1, 1, 1, 1)
        return Batch(shelf.grid, (pixels * gain / 127.5 - 1).clamp(-1, 1), cells.flatten(1), scenes)
