"""What the operator's own vLLM words change about a profile: argv -> flags. Pure.

It understands the forms that vLLM's parser does (`--a-b 1`, `--a_b=1`, `-tp 2`, `64k`) for the flags that decide
whether an engine can work, and passes over all others; vLLM itself refuses what is wrong. A file given to --config is
not read.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serving.profile import FlagValue, Profile

SHORT = {"-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size", "-dp": "data-parallel-size"}
NUMBERS = {
    "max-model-len",
    "max-num-seqs",
    "max-num-batched-tokens",
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
}
WORDS = {"dtype", "kv-cache-dtype", "attention-backend", "gpu-memory-utilization", "load-format"}
JSON = {"mm-processor-kwargs"}

_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)")
_POWER = {"": 0, "k": 1, "m": 2, "g": 3}


def effective(profile: Profile, words: Sequence[str]) -> Profile:
    """Return the profile as vLLM will see it: the operator's words win."""
    return dataclasses.replace(profile, flags={**profile.flags, **dict(_pairs(words))})


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, FlagValue]]:
    for at, word in enumerate(words):
        head, equals, tail = word.partition("=")
        name = SHORT.get(head) or (head[2:].replace("_", "-") if head.startswith("--") else "")
        text = tail if equals else "".join(words[at + 1 : at + 2])
        if (value := _value(name, text)) is not None:
            yield name, value


def _value(name: str, text: str) -> FlagValue | None:
    if name in NUMBERS:
        return human_number(text)
    if name in WORDS:
        return text
    if name in JSON:
        try:
            read: FlagValue = json.loads(text)
        except json.JSONDecodeError:
            return None
        return read if isinstance(read, dict) else None
    return None


def human_number(text: str) -> int | None:
    """Read `64k` as 64,000 and `64K` as 65,536, as vLLM does (utils/argparse_utils.py: human_readable_int)."""
    matched = _HUMAN.fullmatch(text.strip())
    if not matched:
        return None
    number, suffix = matched.groups()
    return int(float(number) * (1000 if suffix.islower() else 1024) ** _POWER[suffix.lower()])
