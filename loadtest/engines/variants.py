"""Which settings are compared: a profile, and the profile with one knob turned. Pure.

One knob at a time: the product of all would take days of a GPU, and what helps alone is tried together by hand after.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.profile import Profile

DEFAULTS = {"max-num-seqs": 256, "max-num-batched-tokens": 2048}
"""vLLM's, where the profile says nothing."""
SERVE = Path(__file__).with_name("bench_serve.py")
QUICK = ("profile", "no prefix caching")
"""Variants of a short run."""


@dataclass(frozen=True)
class Variant:
    """A setting of the engine: what is added to the profile's command line."""

    name: str
    extra: tuple[str, ...] = ()


def variants(profile: Profile) -> list[Variant]:
    """List the profile as it is, then each knob halved and doubled, or switched off."""
    found = [Variant("profile")]
    for flag, default in DEFAULTS.items():
        value = int(str(profile.flags.get(flag, default)))
        # More sequences than tokens in a step cannot run, and vLLM refuses it.
        runs = [changed for changed in (value // 2, value * 2) if changed >= 1 and _runs(profile, flag, changed)]
        found += [Variant(f"{flag} {changed}", (f"--{flag}", str(changed))) for changed in runs]
    if size := _mm_size(profile):
        for longest in (size["longest_edge"] // 2, size["longest_edge"] * 2):
            kwargs = json.dumps({"size": {**size, "longest_edge": longest}})
            found.append(Variant(f"pictures of {longest} px", ("--mm-processor-kwargs", kwargs)))
    found += [
        Variant("no prefix caching", ("--no-enable-prefix-caching",)),
        Variant("no cache of processed pictures", ("--mm-processor-cache-gb", "0")),
    ]
    return found


def _runs(profile: Profile, flag: str, value: int) -> bool:
    values = {name: int(str(profile.flags.get(name, default))) for name, default in DEFAULTS.items()}
    values[flag] = value
    return values["max-num-seqs"] <= values["max-num-batched-tokens"]


def _mm_size(profile: Profile) -> dict[str, int] | None:
    kwargs: Any = profile.flags.get("mm-processor-kwargs")
    return kwargs.get("size") if isinstance(kwargs, dict) else None


@dataclass(frozen=True)
class Load:
    """What vLLM's benchmark sends."""

    name: str
    flags: tuple[str, ...]


def loads(catalogue: str, side_px: int, output_tokens: int) -> list[Load]:
    """List the two loads: random pictures with answers of one length, and the catalogue's with its questions."""
    buckets = f"{{({side_px}, {side_px}, 1): 1.0}}"
    random_mm = (
        *("--dataset-name", "random-mm", "--random-mm-base-items-per-request", "1"),
        *("--random-mm-num-mm-items-range-ratio", "0", "--random-mm-limit-mm-per-prompt", '{"image": 1, "video": 0}'),
        *("--random-mm-bucket-config", buckets, "--random-input-len", "32", "--random-output-len", str(output_tokens)),
        "--ignore-eos",
    )
    custom = (
        *("--dataset-name", "custom_image", "--dataset-path", catalogue, "--custom-output-len", "96"),
        "--custom-ensure-client-side-data",
    )
    return [Load("random", random_mm), Load("catalogue", custom)]


def command(
    python: str, load: Load, *, url: str, model: str, tokenizer: str, prompts: int, at_once: int, folder: str, name: str
) -> list[str]:
    """Make the command of one measurement. The key is in OPENAI_API_KEY, never in argv."""
    return [
        *(python, str(SERVE), "--backend", "openai-chat"),
        *("--base-url", url, "--endpoint", "/v1/chat/completions"),
        *("--model", tokenizer, "--tokenizer", tokenizer, "--served-model-name", model),
        *load.flags,
        *("--num-prompts", str(prompts), "--max-concurrency", str(at_once), "--seed", "1", "--temperature", "0"),
        *("--percentile-metrics", "ttft,itl,e2el", "--metric-percentiles", "50,95,99", "--disable-tqdm"),
        *("--save-result", "--result-dir", folder, "--result-filename", name),
    ]
