"""Which files of a source are let in, by name alone. Pure.

A list of what is known to be harmless, not of what is known to be harmful: an unknown file is left out. A name that
would leave the folder is never left out in silence: a source that holds one is refused as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from serving.weights.errors import Refused

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"

_WEIGHTS = "*.safetensors"
_TEXTS = (
    "config.json", "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
    "processor_config.json", "adapter_config.json", "hf_quant_config.json", "quantize_config.json",
    "quantization_config.json", "recipe.yaml", "*.safetensors.index.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.json", "tokenizer*.json", "vocab.json", "vocab.txt", "merges.txt", "*.jinja",
    "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.md", "NOTICE.txt",
)  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz")
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".sh", ".ipynb")

# One flat, plain spelling: letters, digits, dot, dash, underscore, plus; no leading dot; a length every disk takes.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_HOSTILE = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:|[\x00-\x1f\x7f]")


class Kind(Enum):
    """What a name promises."""

    WEIGHTS = "weights"
    JSON = "json"
    TEXT = "text"
    PICKLE = "pickle"
    OTHER = "other"

    @property
    def accepted(self) -> bool:
        """Whether files of this kind are fetched."""
        return self in {Kind.WEIGHTS, Kind.JSON, Kind.TEXT}


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a name, and why."""

    kind: Kind
    reason: str


def judge(name: str) -> Verdict:
    """Say what a name is. Raises Refused for one that could leave the folder it is put into."""
    if _HOSTILE.search(name):
        raise Refused(f"the source has a file called {name!r}, which would leave the folder: do not use this source")
    if name.lower().endswith(_PICKLES):
        return Verdict(Kind.PICKLE, "a pickle can run code when it is loaded; only safetensors are let in")
    if _PLAIN.fullmatch(name):
        if fnmatchcase(name, _WEIGHTS):
            return Verdict(Kind.WEIGHTS, "weights")
        if any(fnmatchcase(name, pattern) for pattern in _TEXTS):
            return Verdict(Kind.JSON if name.endswith(".json") else Kind.TEXT, "known text")
    return Verdict(Kind.OTHER, _why_not(name))


def _why_not(name: str) -> str:
    if name.lower().endswith(_CODE):
        return "code is never fetched with weights"
    if name in {MANIFEST, SUMS}:
        return "checksums; the fetch writes its own manifest.json"
    if not _PLAIN.fullmatch(name):
        return "only plainly named files at the top of the source are used"
    return "not a file that serving needs"
