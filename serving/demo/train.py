"""Trains the demo checkpoint from nothing: `python -m serving.demo.train --out DIR --minutes 45`.

First the vision tower alone learns what each visual token shows, then the whole model learns to answer; the learning
rate falls along a cosine to zero at the end of the time. Weights are saved every minute and a run that was stopped
goes on where it was. Runs in the engine's environment (torch, transformers); two CPU cores are enough.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from serving.demo import checkpoint_files, lessons, network, pool, recipe, tokens
from serving.demo.batches import FULL, SIMPLE, Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

SAVE_EVERY_S = 60.0
LOG_EVERY_STEPS = 25


def say(message: str) -> None:
    """Print a line of progress at once."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {message}\n")
    sys.stdout.flush()


@dataclass(slots=True)
class Clock:
    """How far the run is, from 0 to 1: by the time trained, kept across restarts."""

    total_s: float
    spent_s: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def tick(self) -> float:
        """Count the time since the last tick; give the share of the run that is over."""
        now = time.monotonic()
        self.spent_s += now - self.since
        self.since = now
        return self.spent_s / self.total_s


def learning_rate(share: float, schedule: recipe.Schedule) -> float:
    """Warm up linearly, then follow a cosine to zero; the joint part starts with a warm-up of its own."""
    rate = schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    for start in (0.0, schedule.vision_share):
        if start <= share < start + schedule.warmup_share:
            rate *= (share - start) / schedule.warmup_share
    return rate


class Trainer:
    """Holds model, optimiser and clock; a step is one batch of pictures of one size."""

    def __init__(self, out: Path, pictures: Path, minutes: float, schedule: recipe.Schedule) -> None:
        self.out, self.schedule = out, schedule
        tokenizer = tokens.build()
        checkpoint_files.save_tokenizer(tokenizer, out)
        ids = {token: tokenizer.token_to_id(token) for token in tokens.SPECIAL}
        self.model: Any = network.build(recipe.config(tokenizer.get_vocab_size(), ids), schedule.seed)
        self.heads = lessons.CellHeads(recipe.TEXT_WIDTH)
        self.writer = Writer(tokenizer)
        self.pool = pool.Pool(pictures)
        self.clock = Clock(minutes * 60)
        self.steps = 0
        parameters = [*self.model.parameters(), *self.heads.parameters()]
        decayed = [weight for weight in parameters if weight.dim() > 1]
        plain = [weight for weight in parameters if weight.dim() <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=0.0,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.state = out / "training-state.pt"
        if self.state.exists():
            self._resume()

    def _resume(self) -> None:
        saved = torch.load(self.state, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.steps, self.clock.spent_s = saved["steps"], saved["spent_s"]
        say(f"goes on at step {self.steps}, {self.clock.spent_s / 60:.1f} min of {self.clock.total_s / 60:.0f}")

    def save(self) -> None:
        """Write the checkpoint and, beside it, what a restart needs."""
        checkpoint_files.save_weights(self.model, self.out)
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "spent_s": self.clock.spent_s,
        }
        partial = self.state.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.state)

    def step(self, share: float) -> dict[str, float]:
        """Train on one batch; gives what is worth logging."""
        schedule = self.schedule
        dice = random.Random(schedule.seed * 1_000_003 + self.steps)  # noqa: S311 - seeded on purpose
        batch = self.pool.batch(schedule.pictures_a_step, dice)
        labels = lessons.cell_labels(batch.scenes, batch.cells)
        with torch.autocast("cpu", torch.bfloat16):
            seen = network.see(self.model, batch.pixels)
            loss, right = self.heads(seen.tokens, labels)
            log = dict(zip(("product", "colour", "pattern", "place"), right.tolist(), strict=True))
            if share >= schedule.vision_share:
                kinds = SIMPLE if share < schedule.simple_share else FULL
                exercise = self.writer.exercise(batch.scenes, batch.cells, batch.grid, schedule.questions_a_picture, kinds, dice)
                answers, looking, exact = self._answers(exercise, seen)
                log |= {"answers": answers.item(), "looking": looking.item(), "exact": exact}
                loss = schedule.auxiliary_weight * loss + answers + schedule.grounding_weight * looking
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), schedule.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(share, schedule)
        self.optimiser.step()
        self.steps += 1
        return log | {"loss": loss.item()}

    def _answers(self, exercise: Any, seen: network.Seen) -> tuple[Tensor, Tensor, float]:  # noqa: ANN401
        hidden, looks = network.read(self.model, exercise.reading, seen)
        spoken = lessons.spoken(exercise.targets)
        answers, exact = lessons.answer_loss(network.logits(self.model, hidden[spoken]), exercise.targets[spoken])
        looking = lessons.looking_loss(looks, exercise.looks, exercise.reading.picture)
        return answers, looking, exact.item()

    def run(self) -> None:
        """Train until the time is up."""
        self.clock.since = time.monotonic()
        saved, sums = time.monotonic(), dict[str, float]()
        while (share := self.clock.tick()) < 1:
            for key, value in self.step(share).items():
                sums[key] = sums.get(key, 0.0) + value / LOG_EVERY_STEPS
            if self.steps % LOG_EVERY_STEPS == 0:
                say(f"step {self.steps} {share:6.1%} " + " ".join(f"{key} {value:.3f}" for key, value in sums.items()))
                sums = {}
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()
        say(f"done: {self.steps} steps in {self.clock.spent_s / 60:.1f} min of training; checkpoint in {self.out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Render the pictures if there are none yet, then train."""
    parser = argparse.ArgumentParser(prog="python -m serving.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint; a stopped run goes on from it")
    parser.add_argument("--minutes", type=float, default=45.0, help="time to train, rendering not counted")
    parser.add_argument("--pictures", type=Path, help="folder of the rendered pictures (default: OUT/pictures)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    schedule = recipe.Schedule()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = arguments.pictures or arguments.out / "pictures"
    if not any(pictures.glob("*.scenes.pt")):
        for done in pool.render(schedule.pool_pictures, pictures, arguments.threads):
            say(f"drew {done} of {schedule.pool_pictures} pictures")
    Trainer(arguments.out, pictures, arguments.minutes, schedule).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
