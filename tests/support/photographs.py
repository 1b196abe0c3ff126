"""Real photographs: those in scikit-image's package data, read as files; nothing of scikit-image is imported."""

from __future__ import annotations

import importlib.util
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "retina.jpg",
    "hubble_deep_field.jpg",
)
"""A person, a cat, a still life, a machine, a night scene, a medical picture, faint detail."""


@cache
def folder() -> Path:
    """Where they are. Missing ones are a failure that names the next step, never a skipped test."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        message = "the test photographs are missing: run `make photos`"
        raise FileNotFoundError(message)
    return Path(found.submodule_search_locations[0], "data")


@cache
def photograph(name: str) -> Image.Image:
    """One of NAMES, in RGB and without its profile and metadata, which Pillow would write into every copy."""
    with Image.open(folder() / name) as picture:
        return Image.fromarray(np.asarray(picture.convert("RGB")))


def twelve_megapixels(seed: int, quality: int = 92) -> bytes:
    """A JPEG of 4000x3000 as a phone's camera makes it (3 to 4.5 MB): a real photograph enlarged, with a sensor's noise.

    Each seed is another picture: another photograph, another crop, other noise.
    """
    rng = np.random.default_rng(seed)
    picture = photograph(NAMES[seed % len(NAMES)])
    width = min(picture.width, picture.height * 4 // 3) - int(rng.integers(0, 60))
    height = width * 3 // 4
    x, y = int(rng.integers(0, picture.width - width + 1)), int(rng.integers(0, picture.height - height + 1))
    large = picture.crop((x, y, x + width, y + height)).resize((4000, 3000), Image.Resampling.BICUBIC)
    # One tile of noise, moved for each row of tiles: drawing 36 million numbers would take seconds.
    tile = rng.normal(0, 6, (500, 4000, 1))
    noise = np.concatenate([np.roll(tile, int(shift), axis=1) for shift in rng.integers(0, 4000, 6)])
    out = io.BytesIO()
    noisy = np.clip(np.asarray(large, np.float32) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(out, "JPEG", quality=quality)
    return out.getvalue()
