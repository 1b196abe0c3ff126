"""Trains the demo checkpoint from nothing: `make demo-train`, or `python -m serving.demo.train --out DIR --minutes 50`.

First the vision tower alone learns what each visual token shows, then the whole model learns to answer; the learning
rate falls along a cosine to zero at the end of the time. Weights are saved every minute and a run that was stopped
goes on where it was. Runs in the engine's environment (torch, transformers); two CPU cores are enough.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, multiprocessing

from serving.demo import recipe
from serving.demo.training import files, lessons, network, pool, tokens
from serving.demo.training.batches import FULL, SIMPLE, Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

OUT = Path(".demo/train")
PUBLISHED = Path(__file__).parent / "checkpoint"
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


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    out: Path
    pictures: Path
    minutes: float


class Trainer:
    """One of the processes that train together: the same weights in each, its own pictures, gradients averaged."""

    def __init__(self, options: Options, rank: int) -> None:
        self.options, self.rank = options, rank
        self.schedule = schedule = recipe.Schedule()
        tokenizer = tokens.build()
        if rank == 0:
            files.save_tokenizer(tokenizer, options.out)
        ids = {token: tokenizer.token_to_id(token) for token in tokens.SPECIAL}
        self.model: Any = network.build(recipe.config(tokenizer.get_vocab_size(), ids), schedule.seed)
        self.twin: Any = network.half_precision(self.model)
        self.heads = lessons.CellHeads(recipe.TEXT_WIDTH)
        self.writer = Writer(tokenizer)
        self.pool = pool.Pool(options.pictures)
        self.clock = Clock(options.minutes * 60)
        self.steps = 0
        self.weights = [*self.model.parameters(), *self.heads.parameters()]
        self.twins = [*self.twin.parameters(), *self.heads.parameters()]
        sizes = [weight.numel() for weight in self.weights]
        # One flat buffer for all gradients, and a last place for how far the first process says the run is.
        self.flat = torch.zeros(sum(sizes) + 1)
        for weight, gradient in zip(self.weights, self.flat[:-1].split(sizes), strict=True):
            weight.grad = gradient.view(weight.shape)
        groups = [
            {"params": [weight for weight in self.weights if weight.dim() > 1], "weight_decay": schedule.weight_decay},
            {"params": [weight for weight in self.weights if weight.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)
        self.state = options.out / "training-state.pt"
        if self.state.exists():
            self._resume()

    def _resume(self) -> None:
        saved = torch.load(self.state, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.steps, self.clock.spent_s = saved["steps"], saved["spent_s"]
        self._copy_to_twin()
        if self.rank == 0:
            say(f"goes on at step {self.steps}, {self.clock.spent_s / 60:.1f} min of {self.clock.total_s / 60:.0f}")

    def save(self) -> None:
        """Write the checkpoint and, beside it, what a restart needs."""
        files.save_weights(self.model, self.options.out)
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

    def _copy_to_twin(self) -> None:
        with torch.no_grad():
            for twin, weight in zip(self.twins, self.weights, strict=True):
                if twin is not weight:
                    twin.copy_(weight)

    def _learn(self, share: float) -> dict[str, float]:
        """Read one batch and leave its gradients in the twin; gives what is worth logging."""
        schedule = self.schedule
        dice = random.Random(f"{schedule.seed}/{self.steps}/{self.rank}")  # noqa: S311 - seeded on purpose
        batch = self.pool.batch(schedule.pictures_a_batch * (1 if share >= schedule.vision_share else 2), dice)
        seen = network.see(self.twin, batch.pixels)
        loss, right = self.heads(seen.tokens, lessons.cell_labels(batch.scenes, batch.cells))
        log = dict(zip(("product", "colour", "pattern", "place"), right.tolist(), strict=True))
        if share >= schedule.vision_share:
            kinds = SIMPLE if share < schedule.simple_share else FULL
            exercise = self.writer.exercise(
                batch.scenes, batch.cells, batch.grid, schedule.questions_a_picture, kinds, dice
            )
            hidden, looks = network.read(self.twin, exercise.reading, seen)
            spoken = lessons.spoken(exercise.targets)
            answers, exact = lessons.answer_loss(network.logits(self.twin, hidden[spoken]), exercise.targets[spoken])
            looking = lessons.looking_loss(looks, exercise.looks, exercise.reading.picture)
            log |= {"answers": answers.item(), "looking": looking.item(), "exact": exact.item()}
            loss = schedule.auxiliary_weight * loss + answers + schedule.grounding_weight * looking
        loss.backward()
        return log

    def step(self, share: float) -> tuple[float, dict[str, float]]:
        """Train on one batch a process; gives the share of the run that is over, agreed by all, and what to log."""
        self.flat.zero_()
        log = self._learn(share)
        for twin, weight in zip(self.twins, self.weights, strict=True):
            if twin is not weight and twin.grad is not None:
                weight.grad.copy_(twin.grad)
                twin.grad = None
        # Every process follows the first one's clock.
        self.flat[-1] = self.clock.tick() * self.schedule.processes if self.rank == 0 else 0.0
        if distributed.is_initialized():
            distributed.all_reduce(self.flat)
        self.flat /= self.schedule.processes
        gradient = self.flat[:-1]
        gradient *= min(1.0, self.schedule.clip_norm / (float(gradient.norm()) + 1e-6))
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(share, self.schedule)
        self.optimiser.step()
        self._copy_to_twin()
        self.steps += 1
        return float(self.flat[-1]), log

    def run(self) -> None:
        """Train until the time is up; the first process logs and saves."""
        self.clock.since = saved = time.monotonic()
        share, sums = self.clock.spent_s / self.clock.total_s, dict[str, float]()
        while share < 1:
            share, log = self.step(share)
            if self.rank > 0:
                continue
            for key, value in log.items():
                sums[key] = sums.get(key, 0.0) + value / LOG_EVERY_STEPS
            if self.steps % LOG_EVERY_STEPS == 0:
                say(f"step {self.steps} {share:6.1%} " + " ".join(f"{key} {value:.3f}" for key, value in sums.items()))
                sums = {}
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        if self.rank == 0:
            self.save()
            say(f"done: {self.steps} steps, {self.clock.spent_s / 60:.1f} min of training; it is in {self.options.out}")


def work(rank: int, options: Options) -> None:
    """Be one of the training processes: one thread, so that two never wait for each other inside an operation."""
    torch.set_num_threads(1)
    schedule = recipe.Schedule()
    if schedule.processes > 1:
        meeting = (options.out / "meeting-point").absolute().as_uri()
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=schedule.processes)
    Trainer(options, rank).run()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def main(argv: Sequence[str] | None = None) -> int:
    """Render the pictures if there are none yet, then train."""
    parser = argparse.ArgumentParser(prog="python -m serving.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help=f"the new checkpoint's folder (default: {OUT})")
    parser.add_argument(
        "--minutes", type=float, default=50.0, help="time to train, rendering not counted (default: 50)"
    )
    parser.add_argument("--pictures", type=Path, help="folder of the rendered pictures (default: OUT/pictures)")
    parser.add_argument("--publish", action="store_true", help=f"put the result into {PUBLISHED} at the end")
    arguments = parser.parse_args(argv)
    options = Options(arguments.out, arguments.pictures or arguments.out / "pictures", arguments.minutes)
    schedule = recipe.Schedule()
    options.out.mkdir(parents=True, exist_ok=True)
    if not any(options.pictures.glob("*.scenes.pt")):
        for done in pool.render(schedule.pool_pictures, options.pictures, schedule.processes):
            say(f"drew {done} of {schedule.pool_pictures} pictures")
    (options.out / "meeting-point").unlink(missing_ok=True)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(work, args=(options,), nprocs=schedule.processes)
    if arguments.publish:
        files.publish(options.out, PUBLISHED)
        say(f"published in {PUBLISHED}; measure it: `make demo`, then `make demo-eval ARGS=--write-card`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
