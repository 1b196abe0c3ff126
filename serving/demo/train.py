"""Trains the demo checkpoint from nothing: `make demo-train`, or `python -m serving.demo.train --out DIR`.

First the vision tower alone learns what each visual token shows, then the whole model learns to answer; the learning
rate falls along a cosine to zero at the last step. The number of steps is fixed, so a busy machine takes longer and
gets the same weights. They are saved every minute and a run that was stopped goes on where it was. Runs in the engine's
environment (torch, transformers); two CPU cores are enough.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from dataclasses import dataclass
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


def learning_rate(share: float, schedule: recipe.Schedule) -> float:
    """Warm up linearly, then follow a cosine to zero; the joint part starts with a warm-up of its own."""
    rate = schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    for start in (0.0, schedule.vision_share):
        if start <= share < start + schedule.warmup_share:
            rate *= (share - start) / schedule.warmup_share
    return rate


def optimisers(model: Any, heads: Any, schedule: recipe.Schedule) -> list[Any]:  # noqa: ANN401 - torch is untyped here
    """Muon for the matrices inside the layers, AdamW for tables, scales, biases and the training-only heads."""
    matrices: list[Any] = []
    tables: list[Any] = []
    scales: list[Any] = []
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "embed" not in name:  # noqa: PLR2004
            matrices.append(weight)
        else:
            (tables if weight.dim() > 1 else scales).append(weight)
    for weight in heads.parameters():
        (tables if weight.dim() > 1 else scales).append(weight)
    groups = [
        {"params": tables, "weight_decay": schedule.weight_decay, "times": 1.0},
        {"params": scales, "weight_decay": 0.0, "times": 1.0},
    ]
    inner = {"params": matrices, "times": schedule.muon_times}
    return [
        torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon([inner], lr=0.0, weight_decay=schedule.weight_decay, adjust_lr_fn="match_rms_adamw"),
    ]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    out: Path
    pictures: Path
    steps: int


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
        self.steps, self.spent_s = 0, 0.0
        self.weights = [*self.model.parameters(), *self.heads.parameters()]
        self.twins = [*self.twin.parameters(), *self.heads.parameters()]
        sizes = [weight.numel() for weight in self.weights]
        # One flat buffer for all gradients: one exchange a step.
        self.flat = torch.zeros(sum(sizes))
        for weight, gradient in zip(self.weights, self.flat.split(sizes), strict=True):
            weight.grad = gradient.view(weight.shape)
        self.optimisers = optimisers(self.model, self.heads, schedule)
        self.state = options.out / "training-state.pt"
        if self.state.exists():
            self._resume()

    def _resume(self) -> None:
        saved = torch.load(self.state, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.steps, self.spent_s = saved["steps"], saved["spent_s"]
        self._copy_to_twin()
        if self.rank == 0:
            say(f"goes on at step {self.steps} of {self.options.steps}, {self.spent_s / 60:.1f} min in")

    def save(self) -> None:
        """Write the checkpoint and, beside it, what a restart needs."""
        files.save_weights(self.model, self.options.out)
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "steps": self.steps,
            "spent_s": self.spent_s,
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

    def step(self) -> dict[str, float]:
        """Train on one batch a process; gives what to log."""
        self.flat.zero_()
        share = self.steps / self.options.steps
        log = self._learn(share)
        for twin, weight in zip(self.twins, self.weights, strict=True):
            if twin is not weight and twin.grad is not None:
                weight.grad.copy_(twin.grad)
                twin.grad = None
        if distributed.is_initialized():
            distributed.all_reduce(self.flat)
        self.flat /= self.schedule.processes
        self.flat *= min(1.0, self.schedule.clip_norm / (float(self.flat.norm()) + 1e-6))
        rate = learning_rate(share, self.schedule)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["times"]
            optimiser.step()
        self._copy_to_twin()
        self.steps += 1
        return log

    def run(self) -> None:
        """Train until the last step; the first process logs and saves."""
        since = saved = time.monotonic()
        sums = dict[str, float]()
        while self.steps < self.options.steps:
            log = self.step()
            if self.rank > 0:
                continue
            now = time.monotonic()
            self.spent_s, since = self.spent_s + now - since, now
            for key, value in log.items():
                sums[key] = sums.get(key, 0.0) + value / LOG_EVERY_STEPS
            if self.steps % LOG_EVERY_STEPS == 0:
                left = self.spent_s / self.steps * (self.options.steps - self.steps) / 60
                figures = " ".join(f"{key} {value:.3f}" for key, value in sums.items())
                say(f"step {self.steps} of {self.options.steps}, about {left:.0f} min to go: {figures}")
                sums = {}
            if now - saved > SAVE_EVERY_S:
                self.save()
                saved = now
        if self.rank == 0:
            self.save()
            say(f"done: {self.steps} steps, {self.spent_s / 60:.1f} min of training; it is in {self.options.out}")


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
    parser.add_argument("--steps", type=int, default=recipe.Schedule().steps, help="default: %(default)s")
    parser.add_argument("--pictures", type=Path, help="folder of the rendered pictures (default: OUT/pictures)")
    parser.add_argument("--publish", action="store_true", help=f"put the result into {PUBLISHED} at the end")
    arguments = parser.parse_args(argv)
    options = Options(arguments.out, arguments.pictures or arguments.out / "pictures", arguments.steps)
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
    else:
        say("to serve it: `make demo-train ARGS=--publish` puts the finished training into the checkpoint's folder")
    return 0


if __name__ == "__main__":
    sys.exit(main())
