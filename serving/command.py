"""(profile, what the operator asks for) -> the engine's argv and environment. Pure: nothing is read or started."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serving.profile import FlagValue, Profile

ENGINE_MODULE = "vllm.entrypoints.openai.api_server"
"""Started with `python -m`: the `vllm` console script of the CPU rebuild looks up a distribution that it is not."""

HEADLESS_MODULE = ("vllm.entrypoints.cli.main", "serve")
"""For a node without an API of its own (`--headless`, several nodes for one engine): only `vllm serve` knows how."""

FORBIDDEN_VARIABLES = {
    "VLLM_SERVER_DEV_MODE": "it opens unauthenticated endpoints that read and reset the engine",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "it lets a peer run code by sending a pickle",
}
_OFF = ("", "0", "false")

OBJECT_STORES = ("s3://", "gs://", "az://")
"""Where Run:ai's Model Streamer reads from (transformers_utils/runai_utils.py: SUPPORTED_SCHEMES)."""
STREAMER = "runai_streamer"

THINKING = "thinking"
"""In the name of a checkpoint: it thinks aloud before it answers."""
REASONING_PARSER = "qwen3"
"""Puts the thoughts into `reasoning`, so that `content` is the answer alone."""

CACHES = {
    "VLLM_CACHE_ROOT": "vllm",  # torch.compile's graphs, Inductor's and Triton's code for them, the startup plan
    "TORCHINDUCTOR_CACHE_DIR": "inductor",  # what is compiled outside of that
    "TRITON_CACHE_DIR": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUDA_CACHE_PATH": "cuda",  # PTX that the driver compiled
}
"""Variable -> folder below the cache of one profile."""

_SECRET_FLAG = re.compile(r"--api[-_]key(=.*)?")


class CommandError(Exception):
    """What was asked for cannot or must not be run; the message names the next step."""


@dataclass(frozen=True)
class Request:
    """What the operator asks for on the command line."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None
    """Instead of the profile's checkpoint."""
    served_model_names: tuple[str, ...] = ()
    """Instead of the profile's; the first one stands in answers."""
    load_format: str | None = None
    """vLLM's --load-format; None: the streamer for a checkpoint in object storage, else the profile's or vLLM's own."""
    cache_dir: str | None = None
    """Where compiled code outlives a restart; None: vLLM's own place, in the home directory."""
    extra: tuple[str, ...] = ()
    """Passed to vLLM as they are, last, so that they win."""


@dataclass(frozen=True)
class Invocation:
    """The engine's command line, and the environment it needs besides the one it inherits."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """Write it as a shell command, one variable or flag a line, ready to be pasted."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in sorted(self.env.items())]
        groups: list[list[str]] = [[]]
        for word in self.argv:
            if word.startswith("--"):
                groups.append([])
            groups[-1].append(shlex.quote(word))
        return " \\\n  ".join([*variables, *(" ".join(group) for group in groups)])


def build(
    profile: Profile, request: Request, *, python: str, root: str, inherited: Mapping[str, str] | None = None
) -> Invocation:
    """Make the engine's command line.

    `python` runs the engine, `root` is what a `./` model path is relative to, `inherited` the operator's environment,
    whose variables win over the profile's. Raises CommandError for a missing model, a secret on the command line (every
    user of the machine can read it), and an environment that opens the engine's development endpoints.
    """
    inherited = inherited or {}
    _refuse(request, inherited)
    model = request.model or profile.model
    if model is None:
        raise CommandError(
            f"profile {profile.name} names no checkpoint ({profile.title}): give a directory or hub name with --model"
        )
    flags: dict[str, FlagValue] = dict(profile.flags)
    if request.served_model_names:
        flags["served-model-name"] = list(request.served_model_names)
    if load_format := request.load_format or (STREAMER if model.lower().startswith(OBJECT_STORES) else None):
        flags["load-format"] = load_format
    if THINKING in model.lower().rstrip("/").rpartition("/")[2]:
        flags.setdefault("reasoning-parser", REASONING_PARSER)
    module = HEADLESS_MODULE if "--headless" in request.extra else (ENGINE_MODULE,)
    argv = [python, "-m", *module, "--model", located(model, root)]
    argv += ["--host", request.host, "--port", str(request.port)]
    for name, value in flags.items():
        argv += flag_words(name, value)
    defaults = {**profile.env, **cache_variables(request.cache_dir, profile.name)}
    env = {name: value for name, value in defaults.items() if name not in inherited}
    return Invocation((*argv, *request.extra), env)


def cache_variables(cache_dir: str | None, profile_name: str) -> dict[str, str]:
    """Point every compiler's cache into one folder for each profile.

    The caches key their entries by device and settings themselves; a folder for each profile can be thrown away alone.
    """
    if not cache_dir:
        return {}
    folder = f"{cache_dir.rstrip('/')}/{profile_name}"
    return {variable: f"{folder}/{name}" for variable, name in CACHES.items()}


def located(model: str, root: str) -> str:
    """Resolve a model path written from the repository's root (`./…`); leave absolute paths and hub names alone."""
    return f"{root.rstrip('/')}/{model.removeprefix('./')}" if model.startswith("./") else model


def flag_words(name: str, value: FlagValue) -> list[str]:
    """Write one flag as vLLM's parser reads it: `--no-x` for False, JSON for tables, one word for each list item."""
    match value:
        case True:
            return [f"--{name}"]
        case False:
            return [f"--no-{name}"]
        case list():
            return [f"--{name}", *map(str, value)]
        case dict():
            return [f"--{name}", json.dumps(value, separators=(",", ":"))]
        case _:
            return [f"--{name}", str(value)]


def _refuse(request: Request, inherited: Mapping[str, str]) -> None:
    if any(_SECRET_FLAG.fullmatch(word) for word in request.extra):
        raise CommandError("every user of the machine can read a key on the command line: set VLLM_API_KEY instead")
    for name, why in FORBIDDEN_VARIABLES.items():
        if inherited.get(name, "").lower() not in _OFF:
            raise CommandError(f"{name} is set, and {why}: unset it")


def local_path(argv: Sequence[str]) -> str | None:
    """Return the directory that `--model` names in an argv of ours, None when it is a hub name."""
    model = argv[argv.index("--model") + 1]
    return model if is_local(model) else None


def is_local(model: str) -> bool:
    """Whether a model is named by a path."""
    return model.startswith(("/", "."))
