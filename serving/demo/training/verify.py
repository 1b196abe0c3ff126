"""Proves that the trainer's fast path is the stock model: `python -m serving.demo.training.verify`, engine environment.

For a few scenes, with and without a system prompt: the pixels equal those of the stock processor, the token ids those
of the chat template, the logits those of `Qwen3VLForConditionalGeneration.forward`. Exit code 1 when they do not.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from PIL import Image
from transformers import AutoProcessor

from serving.demo import recipe
from serving.demo.questions import Kind, Question, ask
from serving.demo.scenes import jpeg, scene
from serving.demo.training import network, pool, tokens
from serving.demo.training.batches import Writer, assemble
from serving.demo.words import LANGUAGES

if TYPE_CHECKING:
    from serving.demo.scenes import Scene

PIXEL_TOLERANCE: Final = 1e-6
LOGIT_TOLERANCE: Final = 1e-4
_KINDS: Final[tuple[Kind, ...]] = ("caption", "colour", "tags")


def _messages(question: Question, system: str | None) -> list[dict[str, Any]]:
    user = {"role": "user", "content": [{"type": "text", "text": question.text}, {"type": "image"}]}
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, user, {"role": "assistant", "content": question.answer}]


def differences(model: Any, processor: Any, writer: Writer, picture: Scene, system: str | None) -> tuple[float, float]:  # noqa: ANN401
    """Give the largest difference of pixels and of logits; ValueError if the token ids differ."""
    image = Image.open(io.BytesIO(jpeg(picture)))
    pixels = torch.from_numpy(pool.resized(image)).float()[None] / 127.5 - 1
    grid = (pixels.shape[1] // recipe.CELL_PX, pixels.shape[2] // recipe.CELL_PX)
    dice = random.Random(0)  # noqa: S311 - seeded on purpose
    questions = [ask(picture, kind, language, dice) for kind in _KINDS for language in LANGUAGES]
    row, after = writer.prefix(grid, system)
    for number, question in enumerate(questions, start=1):
        writer.turn(row, question, question.text, after, number)
    first = row.ids.index(writer.image)
    cells = torch.from_numpy(pool.shown(picture, grid)).long().flatten()[None]
    exercise = assemble([row], slice(first, first + grid[0] * grid[1]), cells)
    hidden, _ = network.read(model, exercise.reading, network.see(model, pixels))
    ours = network.logits(model, hidden)[0]
    patch = recipe.PATCH_PX
    blocks = pixels.view(grid[0], 2, patch, grid[1], 2, patch, 3).permute(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3 * patch**2)
    worst_pixel = worst_logit = 0.0
    for number, question in enumerate(questions, start=1):
        text = processor.apply_chat_template(_messages(question, system))
        stock = processor(text=[text], images=[image], return_tensors="pt")
        places = [at for at, segment in enumerate(row.segments) if segment in {0, number}]
        ids = [row.ids[at] for at in places]
        if ids != stock.input_ids[0, : len(ids)].tolist():
            message = f"the chat template writes other tokens than the trainer for {question.text!r}"
            raise ValueError(message)
        theirs = stock.pixel_values.view(-1, 3, 2, patch, patch)[:, :, 0].flatten(1)
        worst_pixel = max(worst_pixel, float((theirs - blocks).abs().max()))
        worst_logit = max(worst_logit, float((model(**stock).logits[0, : len(ids)] - ours[places]).abs().max()))
    return worst_pixel, worst_logit


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not installed where types are checked
def main() -> int:
    """Compare on ten pictures and print the largest differences."""
    tokenizer = tokens.build()
    ids = {token: tokenizer.token_to_id(token) for token in tokens.SPECIAL}
    model = network.build(recipe.config(tokenizer.get_vocab_size(), ids), seed=0).eval()
    with tempfile.TemporaryDirectory() as folder:
        tokens.save(tokenizer, Path(folder))
        processor = AutoProcessor.from_pretrained(folder)
    writer = Writer(tokenizer)
    pairs = [
        differences(model, processor, writer, scene(seed), system)
        for seed in range(10)
        for system in (None, tokens.SYSTEM_PROMPTS[0])
    ]
    pixel, logit = (max(values) for values in zip(*pairs, strict=True))
    sys.stdout.write(f"largest difference: pixels {pixel:.1e}, logits {logit:.1e}\n")
    return 0 if pixel < PIXEL_TOLERANCE and logit < LOGIT_TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
