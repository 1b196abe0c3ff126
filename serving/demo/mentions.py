"""Which words of a question or an answer speak of which products: noted while the string is built, read off after.

The notes are private-use characters inside the string; nothing but this module sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

_OPEN: Final = "\ue000"
_MIDDLE: Final = "\ue001"
_CLOSE: Final = "\ue002"
_DIGIT: Final = 0xE010


@dataclass(frozen=True, slots=True)
class Mention:
    """Words that speak of some of the scene's products."""

    part: Literal["text", "answer"]
    start: int
    end: int
    """Characters of the part, end exclusive."""
    items: tuple[int, ...]
    """Indices into `Scene.items`."""


def mark(text: str, items: list[int]) -> str:
    """Note inside the string which products `text` speaks of; `plain` takes the notes out again."""
    return _OPEN + "".join(chr(_DIGIT + index) for index in items) + _MIDDLE + text + _CLOSE if items else text


def plain(part: Literal["text", "answer"], marked: str) -> tuple[str, list[Mention]]:
    """Take the notes out of a part, and say where they were."""
    plain, mentions = "", []
    for piece in marked.split(_OPEN):
        note, middle, rest = piece.partition(_MIDDLE)
        if not middle:
            plain += piece
            continue
        text, _, after = rest.partition(_CLOSE)
        items = tuple(ord(digit) - _DIGIT for digit in note)
        mentions.append(Mention(part, len(plain), len(plain) + len(text), items))
        plain += text + after
    return plain, mentions


def capital(marked: str) -> str:
    """Raise the first letter, which may stand behind a note."""
    at = marked.find(_MIDDLE) + 1 if marked.startswith(_OPEN) else 0
    return marked[:at] + marked[at].upper() + marked[at + 1 :]
