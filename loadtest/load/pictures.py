"""The questions of a traffic and the pictures that they are about: seeded, and never seen in training.

A photograph is a catalogue picture with sides several times as long and a camera's noise: megabytes that still have a
known answer, as the gateway shrinks them back.
"""

from __future__ import annotations

import base64
import io
import random
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from PIL import Image

from loadtest.load.plan import count_of
from serving.demo import questions, scenes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtest.load.scenario import Scenario, Traffic
    from serving.demo.questions import Question

PHOTO_QUALITY = 90
_TRAFFIC_SEEDS = 100_000
"""No traffic has more pictures than that."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is sent, and what it shows."""

    scene: scenes.Scene
    jpeg: bytes

    @cached_property
    def url(self) -> str:
        """As a data URL."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode("ascii")


@dataclass(frozen=True)
class Asked:
    """A question about a picture, with earlier questions about it for longer prompts."""

    picture: Picture
    question: Question
    earlier: tuple[Question, ...]


class Pool:
    """All questions of a scenario; drawn at once, so that drawing does not delay a request.

    `breathe` is called after each picture: a generator has a heart that must beat meanwhile.
    """

    def __init__(self, scenario: Scenario, breathe: Callable[[], object] = lambda: None) -> None:
        self._asked = [list(_questions(scenario.seed, traffic, breathe)) for traffic in scenario.traffic]

    def asked(self, traffic: int, question: int) -> Asked:
        """Give one by the numbers of the plan."""
        return self._asked[traffic][question]


def _questions(seed: int, traffic: Traffic, breathe: Callable[[], object]) -> Iterator[Asked]:
    # Of its name, so that a traffic's pictures do not change with what stands beside it in the file.
    first = scenes.UNSEEN_SEED + (zlib.crc32(traffic.name.encode()) + seed) % 1000 * _TRAFFIC_SEEDS
    pictures = []
    for number in range(traffic.pictures):
        pictures.append(draw(first + number, traffic))
        breathe()
    for number in range(count_of(traffic)):
        picture = pictures[number % traffic.pictures]
        dice = random.Random(f"load/{first + number}")  # noqa: S311 - a question, not a secret
        asked = [
            questions.ask(picture.scene, dice.choice(traffic.kinds), dice.choice(traffic.languages), dice)
            for _ in range(len(traffic.earlier_turns))
        ]
        yield Asked(picture, asked[0], tuple(asked[1:]))


def draw(seed: int, traffic: Traffic) -> Picture:
    """Draw one picture of a traffic."""
    scene = scenes.scene(seed, traffic.products)
    if traffic.photo_scale == 1:
        return Picture(scene, scenes.jpeg(scene))
    size = (scene.size[0] * traffic.photo_scale, scene.size[1] * traffic.photo_scale)
    large = scenes.draw(scene).resize(size, Image.Resampling.BICUBIC)
    # The noise of a sensor: without it a large smooth drawing is a few kilobytes, which no photograph is.
    noise = _noise(seed).resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    Image.blend(large, noise, 0.06).save(buffer, "JPEG", quality=PHOTO_QUALITY)
    return Picture(scene, buffer.getvalue())


def _noise(seed: int, side: int = 512) -> Image.Image:
    dice = random.Random(f"noise/{seed}")  # noqa: S311 - a drawing
    return Image.frombytes("L", (side, side), dice.randbytes(side * side)).convert("RGB")
