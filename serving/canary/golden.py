"""The golden sets: pictures, questions and what a right answer has in it. golden/*.toml -> frozen values, and judging.

Matching is tolerant on purpose: a large model words one fact in many ways. It is never lenient about the fact: every
group of words must be there, as whole words, and none of those that would be a wrong answer.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("golden")
PICTURES = FOLDER / "pictures"


class GoldenError(Exception):
    """A golden set cannot be used; the message says why."""


@dataclass(frozen=True)
class Expected:
    """What a right answer is."""

    equals: str | None = None
    """The whole answer, but for case, white space and the full stop."""
    all: tuple[tuple[str, ...], ...] = ()
    """One word of each group must be there."""
    none: tuple[str, ...] = ()
    """None of these may be."""

    def fault(self, answer: str) -> str | None:
        """Say what is wrong with an answer; None when it is right."""
        said = _plain(answer)
        if self.equals is not None and said.rstrip(".。") != _plain(self.equals).rstrip(".。"):
            return f"not {self.equals!r}"
        for group in self.all:
            if not any(_has(said, word) for word in group):
                return f"none of {', '.join(group)}"
        for word in self.none:
            if _has(said, word):
                return f"says {word}"
        return None


@dataclass(frozen=True)
class Case:
    """One picture and one question about it."""

    name: str
    picture: Path
    question: str
    expected: Expected
    max_tokens: int = 96


@dataclass(frozen=True)
class Golden:
    """A set, and how much of it must be right."""

    name: str
    model: str
    """What the served model is called, unless the command line says."""
    least_right: float
    """Share of the answers, from 0 to 1."""
    cases: tuple[Case, ...]


def names() -> tuple[str, ...]:
    """Return the sets that are shipped."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name: str) -> Golden:
    """Read a set that is shipped, or a file of the same form with pictures beside it. Raises GoldenError."""
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        pictures = PICTURES if path.parent == FOLDER else path.parent
        cases = tuple(_case(entry, pictures) for entry in content["case"])
        golden = Golden(path.stem, content["model"], float(content["least_right"]), cases)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise GoldenError(f"golden set {name} cannot be read: {exc}") from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise GoldenError(f"golden set {name} is not of the right form: {exc!r}") from exc
    if not golden.cases or not 0 < golden.least_right <= 1:
        raise GoldenError(f"golden set {name} would pass whatever is answered: give it cases, and least_right above 0")
    return golden


def _case(entry: dict[str, Any], pictures: Path) -> Case:
    expected = Expected(
        entry.get("equals"),
        tuple(tuple(words.split("|")) for words in entry.get("all", ())),
        tuple(entry.get("none", ())),
    )
    if expected.equals is None and not expected.all:
        raise ValueError(f"{entry['name']}: neither `equals` nor `all`")
    picture = pictures / entry["picture"]
    if not picture.is_file():
        raise ValueError(f"{entry['name']}: no picture {picture}")
    return Case(entry["name"], picture, entry["question"], expected, int(entry.get("max_tokens", Case.max_tokens)))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _has(said: str, word: str) -> bool:
    """Look for a whole word; Chinese has no spaces, so there anywhere counts."""
    wanted = re.escape(_plain(word))
    if word.isascii():
        wanted = rf"(?<![a-z0-9]){wanted}(?![a-z0-9])"
    return re.search(wanted, said) is not None
