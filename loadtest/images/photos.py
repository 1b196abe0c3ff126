"""Many different 12-megapixel photographs from a few: written once, then told apart in the JPEG's own tables."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING

from tests.support.photographs import NAMES, photograph, twelve_megapixels

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = (576, 448)
"""Within 512x512 pixels and on the grid of 32: what the model sees as it is."""
_DQT = b"\xff\xdb"
_LOWEST = (1, 2, 4)
"""Places in zigzag order of the 2x2 frequencies that shrink-on-load to a quarter keeps, without the mean."""
_STEPS = tuple(itertools.product(range(3), repeat=2 * len(_LOWEST)))


def variants(jpeg: bytes) -> Iterator[bytes]:
    """729 JPEGs that differ from each other in every part of the picture, of the same size and cost to decode.

    The quantisation steps of the lowest frequencies are raised by 0 to 2, of luma and of chroma: other pixels, also
    after shrink-on-load, so neither a cache of bytes nor one of pixels takes two of them for the same.
    """
    luma = jpeg.index(_DQT) + 5  # marker, length, table number
    chroma = jpeg.index(_DQT, luma + 64) + 5
    places = [table + place for table in (luma, chroma) for place in _LOWEST]
    for steps in _STEPS:
        changed = bytearray(jpeg)
        for place, step in zip(places, steps, strict=True):
            changed[place] += step
        yield bytes(changed)


def photos(bases: int = 6) -> Iterator[bytes]:
    """Different 12-megapixel photographs, at most 729 x `bases`; neighbours show different things."""
    streams = [variants(twelve_megapixels(seed)) for seed in range(bases)]
    return (jpeg for group in zip(*streams, strict=True) for jpeg in group)


def small_pictures() -> Iterator[bytes]:
    """Different small clean JPEGs: the gateway hands them on untouched."""
    streams = []
    for name in NAMES:
        out = io.BytesIO()
        photograph(name).resize(SMALL).save(out, "JPEG", quality=92, subsampling=0)
        streams.append(variants(out.getvalue()))
    return (jpeg for group in zip(*streams, strict=True) for jpeg in group)
