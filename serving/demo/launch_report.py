"""What the demo says: one line an event with the seconds since the start, readable in a terminal and in a log file."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.status import Status

    from serving.demo.ask import Answered

MIB = 2**20


@dataclass
class Report:
    """Prints; on a terminal a spinner shows what is waited for."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    first_answer_s: float | None = None
    """When the first answer was there, in seconds since the start."""

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def event(self, text: str, style: str | None = None) -> None:
        """Print a line with the time."""
        self.console.print(f"[{self.elapsed_s:6.1f} s] {text}", style=style, markup=False)

    def plain(self, text: str = "") -> None:
        """Print text to be copied: never wrapped, never coloured."""
        self.console.print(text, markup=False)

    def fault(self, text: str, log_tail: str = "") -> None:
        """Print what went wrong, after the end of the log that explains it."""
        if log_tail:
            self.plain(log_tail)
        self.event(text, style="bold red")

    def waiting(self, text: str) -> Status:
        """Return a spinner to be used as a context; silent when the output is no terminal."""
        return self.console.status(text)

    def answered(self, number: int, result: Answered) -> None:
        """Print picture, question, answer and latency."""
        if self.first_answer_s is None:
            self.first_answer_s = self.elapsed_s
        task, question = result.drawn.task, result.drawn.question
        how = "streamed" if task.streamed else "plain"
        latency = f"{result.total_s * 1000:.0f} ms"
        if result.first_token_s is not None:
            latency = f"first token after {result.first_token_s * 1000:.0f} ms, all after {latency}"
        self.event(f"question {number} ({task.kind}, {task.language}, {how})")
        self.plain(f"    picture   {result.drawn.picture}")
        self.plain(f"    question  {question.text}")
        shown = result.answer.strip().replace("\n", " ") or "(empty)"
        self.console.print(f"    answer    {shown}", style="green" if result.right else "bold red", markup=False)
        if not result.right:
            self.plain(f"    expected  {question.answer}")
        self.plain(f"    latency   {latency}")

    def sizes(self, rss_bytes: dict[str, int]) -> None:
        """Print the figures that the demo promises."""
        parts = ", ".join(f"{name} {rss / MIB:,.0f} MiB" for name, rss in rss_bytes.items())
        total = sum(rss_bytes.values()) / MIB
        first = f"first answer {self.first_answer_s:.1f} s after the start; " if self.first_answer_s else ""
        self.event(f"{first}memory {total:,.0f} MiB RSS ({parts})")
