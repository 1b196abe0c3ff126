"""Is an answer the answer to its own question about its own picture? Pure.

Three ways to tell, by who answers: the demo checkpoint gives the one exact sentence; a large model says the same in
words of its own; the simulated engine gives back the digest of the picture's bytes and the text that it was sent.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from loadtest.load.pictures import Asked

Way = Literal["exact", "words", "digest"]
WAYS: tuple[Way, ...] = get_args(Way)
DEMO_MODEL = "qwen3-vl-demo"

_ARTICLES = frozenset({"a", "an", "the", "is", "are", "it", "of", "pair"})
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_NUMBERS = {"one": "1", "two": "2", "three": "3", "no": "0"}
_CLASSIFIERS = re.compile(r"[一二三两]?(?:件|个|条|只|双|顶|把|块|副|款|张|台)")


def way_for(model: str) -> Way:
    """Choose by the model's name."""
    return "exact" if model == DEMO_MODEL else "words"


class Checker:
    """Checks the answers of one run.

    It keeps what a picture's digest was: the bytes of a photograph are not those that the engine sees, because the
    gateway shrinks them, but the same picture must have the same digest every time and two pictures never one.
    """

    def __init__(self, way: Way) -> None:
        self._way = way
        self._seen: dict[str, str] = {}
        self._whose: dict[str, str] = {}

    def right(self, asked: Asked, answer: str, *, photo: bool = False, cut: bool = False) -> bool:
        """Whether `answer` is right; `cut`: `max_tokens` ended it, so its beginning must be."""
        if self._way == "exact":
            return answer.strip() == asked.question.answer or (cut and asked.question.answer.startswith(answer.strip()))
        if self._way == "words":
            return says(answer, asked.question.answer)
        found, _, rest = answer.partition(" ")
        text = rest.partition(" ")[2]
        if text != asked.question.text:
            return False
        sent = digest(asked.picture.jpeg)
        return self._consistent(sent, found) if photo else found == sent

    def _consistent(self, sent: str, found: str) -> bool:
        return self._seen.setdefault(sent, found) == found and self._whose.setdefault(found, sent) == sent


def digest(picture: bytes) -> str:
    """Name a picture's bytes as tests/support/simulated_engine.py does."""
    return hashlib.blake2b(picture, digest_size=8).hexdigest()


def says(answer: str, wanted: str) -> bool:
    """Whether `answer` has every word that matters of `wanted`, in any order; numbers also as digits."""
    if _CHINESE.search(wanted):
        parts = [part for part in re.split(r"[，。、的和]|" + _CLASSIFIERS.pattern, wanted) if part]
        return all(part in answer for part in parts)
    given = set(re.findall(r"\w+", answer.lower()))
    words = [word for word in re.findall(r"\w+", wanted.lower()) if word not in _ARTICLES]
    return all(_same(word, given) for word in words)


def _same(word: str, given: set[str]) -> bool:
    return bool({word, word + "s", word.removesuffix("s"), _NUMBERS.get(word, word)} & given)
