"""Measures the served demo checkpoint on unseen pictures: `python -m serving.demo.evaluate --base-url … --api-key …`.

Asks every kind of question in both languages about every picture through the OpenAI API at temperature 0, prints exact
matches by kind, language and number of products, and says which bars are met. Exit code 0 when all are, 1 when one is
not, 2 when the service does not answer. It neither starts nor stops anything.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import openai

from serving.demo.questions import WITHOUT_PICTURE, Kind, ask, tags_schema
from serving.demo.scenes import MAX_PRODUCTS, UNSEEN_SEED, jpeg, scene
from serving.demo.words import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from serving.demo.questions import Question
    from serving.demo.words import Language

MODEL: Final = "qwen3-vl-demo"
CARD: Final = Path(__file__).parent / "checkpoint" / "README.md"
START, END = "<!-- measured: start -->", "<!-- measured: end -->"

# The kinds in the table's order; `schema` asks for tags under a JSON schema.
_ROWS: Final[dict[str, tuple[Kind, str]]] = {
    "caption": ("caption", "caption"),
    "product": ("product", "product"),
    "colour": ("colour", "colour"),
    "pattern": ("pattern", "pattern"),
    "count": ("count", "how many"),
    "tags": ("tags", "tags as JSON"),
    "schema": ("tags", "tags, `response_format` json_schema"),
    "has_product": ("has_product", "yes/no: is there a product"),
    "has_attribute": ("has_attribute", "yes/no: colour or pattern"),
    "absent": ("absent", "attribute of a product not shown"),
    "no_picture": ("no_picture", "question without a picture"),
    "chat": ("chat", "small talk without a picture"),
}

_SINGLE: Final = dict.fromkeys(("caption", "product", "colour", "pattern", "count", "tags", "schema"), 0.98)
_SEVERAL: Final = dict.fromkeys(("product", "colour", "pattern", "count"), 0.95) | dict.fromkeys(
    ("caption", "tags", "schema"), 0.88
)
_ALWAYS: Final = {"has_product": 0.95, "no_picture": 0.98}


@dataclass(frozen=True, slots=True)
class Cell:
    """Where in the table an answer counts."""

    row: str
    language: Language
    products: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A share of exact answers to reach, over pictures with these numbers of products."""

    row: str
    language: Language
    products: tuple[int, ...]
    least: float


@dataclass(frozen=True, slots=True)
class Task:
    """One question to put to the service."""

    cell: Cell
    seed: int
    question: Question


def bars() -> list[Bar]:
    """Give every bar of the specification."""
    one, several, every = (1,), (2, 3), (1, 2, 3)
    groups = ((one, _SINGLE), (several, _SEVERAL), (every, _ALWAYS))
    return [
        Bar(row, language, products, least)
        for products, rows in groups
        for row, least in rows.items()
        for language in LANGUAGES
    ]


def plan(scenes: int, first_seed: int = UNSEEN_SEED) -> list[Task]:
    """Choose the questions: each row and language once a picture; pictures show one, two, three products in turn."""
    tasks = []
    for index in range(scenes):
        seed, products = first_seed + index, index % MAX_PRODUCTS + 1
        picture = scene(seed, products)
        for row, (kind, _) in _ROWS.items():
            for language in LANGUAGES:
                dice = random.Random(f"{seed}/{row}/{language}")  # noqa: S311 - a choice of questions, not a secret
                tasks.append(Task(Cell(row, language, products), seed, ask(picture, kind, language, dice)))
    return tasks


@functools.lru_cache(maxsize=64)
def _picture(seed: int, products: int) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(scene(seed, products))).decode()


def request(task: Task, model: str) -> dict[str, Any]:
    """Build the chat completion's arguments."""
    content: list[dict[str, Any]] = []
    if task.question.kind not in WITHOUT_PICTURE:
        content.append({"type": "image_url", "image_url": {"url": _picture(task.seed, task.cell.products)}})
    content.append({"type": "text", "text": task.question.text})
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 128,
    }
    if task.cell.row == "schema":
        schema = {"name": "tags", "schema": tags_schema(task.cell.language), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


@dataclass(slots=True)
class Tally:
    """Counts of questions asked and answered exactly."""

    asked: Counter[Cell]
    right: Counter[Cell]

    def share(self, row: str, language: Language, products: Iterable[int]) -> float | None:
        """Give the share answered exactly; None if nothing was asked."""
        cells = [Cell(row, language, number) for number in products]
        total = sum(self.asked[cell] for cell in cells)
        return sum(self.right[cell] for cell in cells) / total if total else None


def verdicts(tally: Tally) -> list[tuple[Bar, float, bool]]:
    """Judge every bar: the share reached and whether it is enough. An empty cell fails."""
    judged = []
    for bar in bars():
        share = tally.share(bar.row, bar.language, bar.products) or 0.0
        judged.append((bar, share, share >= bar.least))
    return judged


def table(tally: Tally) -> str:
    """Render exact matches in percent as a Markdown table."""
    heads = " | ".join(f"{language} {number}" for language in LANGUAGES for number in range(1, MAX_PRODUCTS + 1))
    lines = [f"| question | {heads} |", "|---|" + "---:|" * (len(LANGUAGES) * MAX_PRODUCTS)]
    for row, (_, title) in _ROWS.items():
        shares = [
            tally.share(row, language, (number,)) for language in LANGUAGES for number in range(1, MAX_PRODUCTS + 1)
        ]
        lines.append(
            f"| {title} | " + " | ".join("–" if share is None else f"{100 * share:.1f}" for share in shares) + " |"
        )
    return "\n".join(lines)


def report(tally: Tally) -> str:
    """Render the table and the bars."""
    lines = [table(tally), ""]
    failed = [(bar, share) for bar, share, met in verdicts(tally) if not met]
    lines.append(f"{len(bars()) - len(failed)} of {len(bars())} bars met." + ("" if not failed else " Missed:"))
    for bar, share in failed:
        shown = " or ".join(str(number) for number in bar.products)
        lines.append(
            f"- {_ROWS[bar.row][1]}, {bar.language}, {shown} products: {100 * share:.1f} %, bar {100 * bar.least:.0f} %"
        )
    return "\n".join(lines)


def rewritten(card: str, measured: str) -> str:
    """Put the measured text between the card's markers; ValueError if they are missing."""
    before, start, rest = card.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        message = f"the card has no {START} … {END}: put the markers where the table belongs"
        raise ValueError(message)
    return f"{before}{START}\n{measured}\n{END}{after}"


async def measure(
    client: openai.AsyncOpenAI, tasks: Sequence[Task], model: str, concurrency: int, mistakes: int
) -> Tally:
    """Ask everything, `concurrency` questions at a time; prints the first `mistakes` wrong answers."""
    tally = Tally(Counter(), Counter())
    waiting = iter(tasks)

    async def one_after_another() -> None:
        nonlocal mistakes
        for task in waiting:
            reply = await client.chat.completions.create(**request(task, model))
            answer = reply.choices[0].message.content or ""
            tally.asked[task.cell] += 1
            tally.right[task.cell] += answer == task.question.answer
            if answer != task.question.answer and mistakes > 0:
                mistakes -= 1
                where = f"seed {task.seed} x{task.cell.products}"
                sys.stdout.write(f"{where} {task.question.text} -> {answer} (right: {task.question.answer})\n")

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(one_after_another())
    return tally


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.demo.evaluate", description=__doc__)
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8080/v1", help="OpenAI base URL of the gateway or the engine"
    )
    parser.add_argument("--api-key", default="sk-demo")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--scenes", type=int, default=500, help="unseen pictures to ask about")
    parser.add_argument(
        "--first-seed", type=int, default=UNSEEN_SEED, help=f"seed of the first picture; unseen from {UNSEEN_SEED}"
    )
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--mistakes", type=int, default=0, help="print this many wrong answers")
    parser.add_argument("--write-card", action="store_true", help="rewrite the measured part of the model card")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; see the module's exit codes."""
    arguments = _arguments(argv)
    tasks = plan(arguments.scenes, arguments.first_seed)

    async def measured() -> Tally:
        async with openai.AsyncOpenAI(base_url=arguments.base_url, api_key=arguments.api_key, max_retries=5) as client:
            return await measure(client, tasks, arguments.model, arguments.concurrency, arguments.mistakes)

    started = time.monotonic()
    try:
        tally = asyncio.run(measured())
    except ExceptionGroup as group:
        faults, others = group.split(openai.OpenAIError)
        if others or not faults:
            raise
        sys.stderr.write(
            f"{arguments.base_url} failed: {faults.exceptions[0]}\nStart it with `make demo`, then again.\n"
        )
        return 2
    took = time.monotonic() - started
    heading = f"{len(tasks)} questions about {arguments.scenes} unseen pictures; exact matches in percent by language"
    text = f"{heading} and number of products.\n\n{report(tally)}"
    sys.stdout.write(f"{text}\n\n{took:.0f} s, {len(tasks) / took:.0f} questions/s\n")
    if arguments.write_card:
        CARD.write_text(rewritten(CARD.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 0 if all(met for _, _, met in verdicts(tally)) else 1


if __name__ == "__main__":
    sys.exit(main())
