"""In which form a shrunk picture goes to the engine: bytes, time to encode, whether the answers stay the pixels' own.

The pictures are catalogue scenes, drawn without loss; PNG is what an answer is compared with, as it keeps every pixel.
"""

from __future__ import annotations

import asyncio
import base64
import io
import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pyvips

from serving.demo import questions
from serving.demo.scenes import UNSEEN_SEED, draw, scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from loadtest.images.stack import Side
    from serving.demo.questions import Kind
    from serving.demo.words import Language

CLIENTS = 16
KINDS: Final[tuple[Kind, ...]] = ("caption", "product", "colour", "pattern", "count")
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")


def _jpeg(quality: int, subsample: str) -> Callable[[Image.Image], bytes]:
    def encode(picture: Image.Image) -> bytes:
        return bytes(_vips(picture).jpegsave_buffer(Q=quality, subsample_mode=subsample, keep=0))

    return encode


def _png(picture: Image.Image) -> bytes:
    return bytes(_vips(picture).pngsave_buffer(compression=1, keep=0))


def _webp(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=90)  # The gateway's libvips has its WebP saver switched off.
    return out.getvalue()


def _vips(picture: Image.Image) -> pyvips.Image:
    return pyvips.Image.new_from_memory(picture.tobytes(), picture.width, picture.height, 3, "uchar").copy(
        interpretation="srgb"
    )


FORMS: Final[dict[str, Callable[[Image.Image], bytes]]] = {
    "PNG, as the pixels are": _png,
    "JPEG 95, 4:4:4": _jpeg(95, "off"),
    "JPEG 90, 4:4:4 (the gateway's)": _jpeg(90, "off"),
    "JPEG 90, 4:2:0": _jpeg(90, "on"),
    "JPEG 75, 4:4:4": _jpeg(75, "off"),
    "JPEG 50, 4:2:0": _jpeg(50, "on"),
    "WebP 90 (Pillow)": _webp,
}


@dataclass(frozen=True)
class Form:
    """What one form costs and keeps."""

    kib: float
    """Mean size."""
    encode_ms: float
    """Median CPU time."""
    same: int
    """Answers that are letter by letter those about the PNG."""
    right: int
    """Answers that are right."""
    asked: int


def compare(side: Side, pictures: int) -> dict[str, Form]:
    """Each form of so many pictures, asked about in every way. Raises RuntimeError for any answer but 200."""
    drawn = [draw(scene(UNSEEN_SEED + n, 1 + n % 3)).convert("RGB") for n in range(pictures)]
    asked = [
        (n, question.text, question.answer)
        for n in range(pictures)
        for kind in KINDS
        for language in LANGUAGES
        for question in [
            questions.ask(
                scene(UNSEEN_SEED + n, 1 + n % 3),
                kind,
                language,
                random.Random(f"{n} {kind} {language}"),  # noqa: S311 - reproducible, not secret
            )
        ]
    ]
    found: dict[str, Form] = {}
    reference: list[str] = []
    for name, encode in FORMS.items():
        encoded, spent = [], []
        for picture in drawn:
            begun = time.process_time()
            encoded.append(encode(picture))
            spent.append((time.process_time() - begun) * 1000)
        answers = asyncio.run(_answers(side, encoded, [(n, text) for n, text, _ in asked]))
        reference = reference or answers
        found[name] = Form(
            kib=statistics.mean(map(len, encoded)) / 1024,
            encode_ms=statistics.median(spent),
            same=sum(one == other for one, other in zip(answers, reference, strict=True)),
            right=sum(one == right for one, (_, _, right) in zip(answers, asked, strict=True)),
            asked=len(asked),
        )
    return found


async def _answers(side: Side, encoded: Sequence[bytes], asked: Sequence[tuple[int, str]]) -> list[str]:
    urls = ["data:image/x;base64," + base64.b64encode(data).decode() for data in encoded]
    answers = [""] * len(asked)
    queue = iter(enumerate(asked))
    headers = {"authorization": f"Bearer {side.key}"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def client() -> None:
            for at, (number, text) in queue:
                parts = [{"type": "image_url", "image_url": {"url": urls[number]}}, {"type": "text", "text": text}]
                body: dict[str, Any] = {
                    "model": "qwen3-vl-demo",
                    "messages": [{"role": "user", "content": parts}],
                    "max_tokens": 96,
                    "temperature": 0,
                }
                async with http.post(f"{side.url}/v1/chat/completions", json=body) as response:
                    said = await response.json()
                    if response.status != 200:  # noqa: PLR2004
                        raise RuntimeError(f"{side.name} answered {response.status}: {said}")
                    answers[at] = said["choices"][0]["message"]["content"].strip()

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())
    return answers
