"""What the profiles' comments say of vLLM's defaults ("default 2048"), against the installed vLLM. For verify.py.

A default that changes with a release turns a reason into a lie, and nothing else would notice.
"""

from __future__ import annotations

import importlib
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from serving import profile
from serving.capacity import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serving.capacity.gpus import Gpu

_SAID = re.compile(r"^([\w-]+) = .*#.*\bdefault (\d[\d.]*\d|\d)\b", re.MULTILINE)


def said(text: str) -> Iterator[tuple[str, float]]:
    """Yield each flag or variable of a profile's file whose comment names vLLM's default, with that default."""
    for name, value in _SAID.findall(text):
        yield name, float(value)


def faults(default_of: Callable[[str, Gpu | None], object]) -> Iterator[str]:
    """Compare every profile's file with what vLLM's default is on the profile's GPU."""
    for path in sorted(profile.PROFILES_DIR.glob("*.toml")):
        gpu = settings.gpu_of(path.stem)
        for name, value in said(path.read_text(encoding="utf-8")):
            real = default_of(name, gpu)
            if not isinstance(real, int | float) or float(real) != value:
                yield f"{path.name}: {name}: vLLM's default is {real}, and the comment says {value:g}"


def reader(parser: Any) -> Callable[[str, Gpu | None], object]:  # noqa: ANN401  # vLLM is not there to be typed
    """Return how to ask the installed vLLM for a default; `parser` is its server's, which knows the constant ones."""
    variables: dict[str, Callable[[], object]] = importlib.import_module("vllm.envs").environment_variables

    def default_of(name: str, gpu: Gpu | None) -> object:
        if name in variables:
            return variables[name]()
        if name in {"max-num-seqs", "max-num-batched-tokens"}:
            return _batch_default(name, gpu)
        return parser.get_default(name.replace("-", "_"))

    return default_of


def _batch_default(name: str, gpu: Gpu | None) -> object:
    """Ask get_batch_defaults, which looks at the platform, as if this were that GPU, or none."""
    args: Any = importlib.import_module("vllm.engine.arg_utils")
    context: Any = importlib.import_module("vllm.usage.usage_lib").UsageContext.OPENAI_API_SERVER
    platform = SimpleNamespace(
        get_device_total_memory=lambda: gpu.visible_bytes if gpu else 0,
        get_device_name=lambda: gpu.title if gpu else "",
        is_tpu=lambda: False,
        is_cpu=lambda: gpu is None,
    )
    real, args.current_platform = args.current_platform, platform
    try:
        batched_tokens, requests = args.EngineArgs.get_batch_defaults(1)
    finally:
        args.current_platform = real
    return requests[context] if name == "max-num-seqs" else batched_tokens[context]
