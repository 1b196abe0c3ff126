"""The demo's three questions: draws fresh pictures, asks through the OpenAI SDK as any client does, compares."""

from __future__ import annotations

import base64
import random
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.demo import questions, scenes

if TYPE_CHECKING:
    from pathlib import Path

    import openai
    from openai.types.chat import ChatCompletionUserMessageParam

    from serving.demo.questions import Kind, Question
    from serving.demo.words import Language

MAX_ANSWER_TOKENS = 96
"""The longest answer, a caption of three products, takes about 40."""


@dataclass(frozen=True)
class Task:
    """What to draw and how to ask."""

    products: int
    kind: Kind
    language: Language
    streamed: bool


TASKS = (
    Task(products=1, kind="caption", language="en", streamed=False),
    Task(products=1, kind="colour", language="en", streamed=True),
    Task(products=1, kind="product", language="zh", streamed=False),
)


@dataclass(frozen=True)
class Drawn:
    """A picture on the disk and the question about it."""

    task: Task
    picture: Path
    question: Question


@dataclass(frozen=True)
class Answered:
    """What came back."""

    drawn: Drawn
    answer: str
    first_token_s: float | None
    """Seconds to the first piece of a streamed answer."""
    total_s: float

    @property
    def right(self) -> bool:
        """Whether the answer is exactly the expected one."""
        return self.answer.strip() == self.drawn.question.answer


def fresh_seed() -> int:
    """Pick a seed that training never saw."""
    return scenes.UNSEEN_SEED + secrets.randbelow(scenes.UNSEEN_SEED)


def draw(seed: int, folder: Path) -> list[Drawn]:
    """Draw one picture for each task into `folder`; the same seed gives the same pictures and questions."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for number, task in enumerate(TASKS):
        scene = scenes.scene(seed + number, products=task.products)
        picture = folder / f"{seed + number}.jpg"
        picture.write_bytes(scenes.jpeg(scene))
        dice = random.Random(f"demo/{seed + number}")  # noqa: S311  # a question, not a secret
        drawn.append(Drawn(task, picture, questions.ask(scene, task.kind, task.language, dice)))
    return drawn


def put(client: openai.OpenAI, model: str, drawn: Drawn) -> Answered:
    """Ask one question. Raises what the SDK raises."""
    picture = base64.b64encode(drawn.picture.read_bytes()).decode()
    message: ChatCompletionUserMessageParam = {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}},
            {"type": "text", "text": drawn.question.text},
        ],
    }
    started = time.perf_counter()
    if not drawn.task.streamed:
        completion = client.chat.completions.create(
            model=model, messages=[message], temperature=0, max_tokens=MAX_ANSWER_TOKENS
        )
        answer = completion.choices[0].message.content or ""
        return Answered(drawn, answer, None, time.perf_counter() - started)
    pieces: list[str] = []
    first_token_s = None
    for chunk in client.chat.completions.create(
        model=model, messages=[message], temperature=0, max_tokens=MAX_ANSWER_TOKENS, stream=True
    ):
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece:
            first_token_s = first_token_s or time.perf_counter() - started
            pieces.append(piece)
    return Answered(drawn, "".join(pieces), first_token_s, time.perf_counter() - started)
