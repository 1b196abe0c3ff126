"""Turns pictures into reading exercises: one row a picture, its prefix once, several questions after it.

Every question sees the prefix (and itself), no other question; its positions restart after the prefix. So a row
costs one picture and teaches as much as several conversations. Questions without a picture see no prefix at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch

from serving.demo import recipe
from serving.demo.questions import WITHOUT_PICTURE, Kind, Question, ask
from serving.demo.training.network import Reading
from serving.demo.training.tokens import SYSTEM_PROMPTS
from serving.demo.words import LANGUAGES

if TYPE_CHECKING:
    import random

    from tokenizers import Tokenizer

    from serving.demo.scenes import Scene
    from serving.demo.training.pool import Grid

IGNORED: Final = -100
_EVERY: Final = -1
_SYSTEM_SHARE: Final = 0.2
_SECOND_TURN_SHARE: Final = 0.12

SIMPLE: Final[dict[Kind, float]] = {
    "caption": 0.5,
    "product": 2,
    "colour": 2,
    "pattern": 2,
    "count": 1,
    "has_product": 1.5,
    "has_attribute": 1.5,
    "tags": 0.3,
    "absent": 0.3,
    "no_picture": 0.15,
    "chat": 0.1,
}
FULL: Final[dict[Kind, float]] = {
    "caption": 1.5,
    "product": 4,
    "colour": 0.8,
    "pattern": 1.3,
    "count": 1.2,
    "has_product": 0.6,
    "has_attribute": 1.5,
    "tags": 1.2,
    "absent": 0.2,
    "no_picture": 0.15,
    "chat": 0.1,
}


@dataclass(frozen=True, slots=True)
class Exercise:
    """A reading and what should come of it."""

    reading: Reading
    targets: torch.Tensor
    """(rows, length) the next token where an answer is spoken, else -100."""
    looks: torch.Tensor
    """(rows, looks, visual tokens) bool: the cells to look at; all false where the row has fewer looks."""


@dataclass(slots=True)
class _Row:
    ids: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    """0 for the prefix; questions count from 1, those without the picture from -2 downwards."""
    targets: list[int] = field(default_factory=list)
    looks: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def add(self, ids: list[int], start: int, segment: int) -> None:
        self.ids += ids
        self.positions += [(start + step,) * 3 for step in range(len(ids))]
        self.segments += [segment] * len(ids)
        self.targets += [IGNORED] * len(ids)


class Writer:
    """Writes exercises with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.image = tokenizer.token_to_id("<|image_pad|>")
        self.end = tokenizer.token_to_id("<|im_end|>")

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def prefix(self, grid: Grid, system: str | None) -> tuple[_Row, int]:
        """Write what stands before every question of a picture; and the position that follows it."""
        row = _Row()
        opening = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        row.add(self._ids(opening + "<|im_start|>user\n<|vision_start|>"), 0, 0)
        start = len(row.ids)
        for y in range(grid[0]):
            for x in range(grid[1]):
                row.add([self.image], 0, 0)
                row.positions[-1] = (start, start + y, start + x)
        after = start + max(grid)
        row.add(self._ids("<|vision_end|>"), after, 0)
        return row, after + 1

    def turn(self, row: _Row, question: Question, text: str, start: int, segment: int) -> int:
        """Write a question and its answer; gives the position after them."""
        asked = self.tokenizer.encode(text)
        base = len(row.ids)
        row.add(asked.ids, start, segment)
        if text.lower() == question.text.lower() or text == question.text[:-1]:
            for mention in question.mentions:
                if mention.part == "text":
                    row.looks += [
                        (base + at, mention.items) for at in _inside(asked.offsets, mention.start, mention.end)
                    ]
        turn = self._ids("<|im_end|>\n<|im_start|>assistant\n")
        row.add(turn, start + len(asked.ids), segment)
        answer = self.tokenizer.encode(question.answer)
        base = len(row.ids)
        row.add([*answer.ids, self.end], start + len(asked.ids) + len(turn), segment)
        row.targets[base - 1 : -1] = [*answer.ids, self.end]
        for mention in question.mentions:
            if mention.part == "answer":
                # The position before a token is the one that has to find it.
                row.looks += [
                    (base - 1 + at, mention.items) for at in _inside(answer.offsets, mention.start, mention.end)
                ]
        return start + len(asked.ids) + len(turn) + len(answer.ids) + 1

    def row(
        self,
        scene: Scene,
        grid: Grid,
        system: str | None,
        questions: int,
        kinds: dict[Kind, float],
        dice: random.Random,
    ) -> _Row:
        """Write one picture's row with this many questions, their kinds drawn by weight."""
        row, after = self.prefix(grid, system)
        for number in range(questions):
            kind = dice.choices(list(kinds), list(kinds.values()))[0]
            question = ask(scene, kind, dice.choice(LANGUAGES), dice)
            if kind in WITHOUT_PICTURE:
                opening = self._ids(
                    (f"<|im_start|>system\n{system}<|im_end|>\n" if system else "") + "<|im_start|>user\n"
                )
                row.add(opening, 0, -2 - number)
                self.turn(row, question, _casual(question.text, dice), len(opening), -2 - number)
                continue
            place = self.turn(row, question, _casual(question.text, dice), after, number + 1)
            if dice.random() < _SECOND_TURN_SHARE:
                kind = dice.choices(
                    [name for name in kinds if name not in WITHOUT_PICTURE],
                    [weight for name, weight in kinds.items() if name not in WITHOUT_PICTURE],
                )[0]
                again = self._ids("\n<|im_start|>user\n")
                row.add(again, place, number + 1)
                follow = ask(scene, kind, question.language, dice)
                self.turn(row, follow, _casual(follow.text, dice), place + len(again), number + 1)
        return row

    def exercise(
        self,
        scenes: list[Scene],
        cells: torch.Tensor,
        grid: Grid,
        questions: int,
        kinds: dict[Kind, float],
        dice: random.Random,
    ) -> Exercise:
        """Write the exercise of a batch of pictures; `cells` as in `pool.Batch`."""
        system = dice.choice(SYSTEM_PROMPTS) if dice.random() < _SYSTEM_SHARE else None
        rows = [self.row(scene, grid, system, questions, kinds, dice) for scene in scenes]
        first = rows[0].ids.index(self.image)
        return assemble(rows, slice(first, first + grid[0] * grid[1]), cells)


def _casual(text: str, dice: random.Random) -> str:
    """Write as people do: sometimes without the capital, sometimes without the last stop."""
    if dice.random() < 0.12:  # noqa: PLR2004
        text = text[:1].lower() + text[1:]
    if dice.random() < 0.12 and text[-1] in "?.!？。！":  # noqa: PLR2004
        text = text[:-1]
    return text


def _inside(offsets: list[tuple[int, int]], start: int, end: int) -> list[int]:
    return [at for at, (left, right) in enumerate(offsets) if left < end and right > start]


def assemble(rows: list[_Row], picture: slice, cells: torch.Tensor) -> Exercise:
    """Pad rows to one length and make their masks."""
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros(3, len(rows), length, dtype=torch.long)
    segments = torch.full((len(rows), length), _EVERY)
    targets = torch.full((len(rows), length), IGNORED)
    most = max(1, *(len(row.looks) for row in rows))
    looking = torch.zeros(len(rows), most, dtype=torch.long)
    wanted = torch.zeros(len(rows), most, recipe.MAX_ITEMS + 1, dtype=torch.bool)
    for at, row in enumerate(rows):
        size = len(row.ids)
        ids[at, :size] = torch.tensor(row.ids)
        positions[:, at, :size] = torch.tensor(row.positions).T
        segments[at, :size] = torch.tensor(row.segments)
        targets[at, :size] = torch.tensor(row.targets)
        for number, (place, items) in enumerate(row.looks):
            looking[at, number] = place
            wanted[at, number, [item + 1 for item in items]] = True
    one, other = segments.unsqueeze(2), segments.unsqueeze(1)
    allowed = ((one == other) | ((other == 0) & (one > 0))) & torch.ones(length, length, dtype=torch.bool).tril()
    looks = wanted.gather(2, cells.unsqueeze(1).expand(-1, most, -1))
    return Exercise(Reading(ids, positions, allowed, picture, looking), targets, looks)
