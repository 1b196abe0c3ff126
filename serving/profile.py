"""Profiles: one TOML file for each kind of machine, read into a frozen value. Pure apart from reading the files.

A profile holds vLLM's flags and environment with the reason for each value beside it. It builds on others by
`extends` (files whose name begins with an underscore cannot be run); of two values for one name the more special wins.
Nothing here knows which flags vLLM has: `python -m serving.engine.verify` asks the installed vLLM itself.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILES_DIR = Path(__file__).with_name("profiles")

FlagValue = str | int | float | bool | list[Any] | dict[str, Any]

_FLAG_NAME = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_KEYS = {"extends": list, "title": str, "model": str, "flags": dict, "env": dict}

# Rendered by serving.command from the command line, so a profile must not hold them.
_RESERVED_FLAGS = {
    "model": "the key `model`",
    "host": "--host",
    "port": "--port",
    "api-key": "the variable VLLM_API_KEY",
}


class ProfileError(Exception):
    """A profile cannot be used; the message names the file and the fault."""


@dataclass(frozen=True)
class Profile:
    """What one kind of machine runs."""

    name: str
    title: str
    """One line for people."""
    model: str | None
    """Checkpoint: a hub name, or a path that begins with `/` or, from the repository's root, with `./`. None: the
    operator must name one."""
    flags: Mapping[str, FlagValue]
    """vLLM flag without dashes -> value. True and False become `--flag` and `--no-flag`, a table becomes JSON."""
    env: Mapping[str, str]
    """Defaults for the engine's environment."""


def names(directory: Path = PROFILES_DIR) -> tuple[str, ...]:
    """Return the names of the profiles that can be run, in alphabetical order."""
    return tuple(sorted(path.stem for path in directory.glob("*.toml") if not path.stem.startswith("_")))


def load(name: str, directory: Path = PROFILES_DIR) -> Profile:
    """Read a profile and everything it extends. Raises ProfileError."""
    if name not in names(directory):
        raise ProfileError(f"there is no profile {name!r}: choose one of {', '.join(names(directory))}")
    merged = _merged(name, directory, ())
    if "title" not in merged:
        raise ProfileError(f"{name}.toml has no title: say in one line which machine it is for")
    return Profile(name, merged["title"], merged.get("model"), merged.get("flags", {}), merged.get("env", {}))


def _merged(name: str, directory: Path, above: tuple[str, ...]) -> dict[str, Any]:
    """Read one file over everything it extends; tables are merged name by name."""
    if name in above:
        raise ProfileError(f"{' -> '.join((*above, name))}: a profile extends itself; break the circle")
    own = _read(name, directory, above)
    merged: dict[str, Any] = {}
    for layer in [*(_merged(base, directory, (*above, name)) for base in own.pop("extends", [])), own]:
        for key, value in layer.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def _read(name: str, directory: Path, above: tuple[str, ...]) -> dict[str, Any]:
    file = directory / f"{name}.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProfileError(f"{above[-1]}.toml extends {name!r}, and there is no {file.name} beside it") from None
    except tomllib.TOMLDecodeError as exc:
        raise ProfileError(f"{file.name} is no TOML: {exc}") from exc
    if faults := list(_faults(table)):
        raise ProfileError("\n".join(f"{file.name}: {fault}" for fault in faults))
    return table


def _faults(table: dict[str, Any]) -> list[str]:
    """Find every fault of one file at once."""
    faults = [f"{key!r} is no key of a profile; there are {', '.join(_KEYS)}" for key in table.keys() - _KEYS.keys()]
    faults += [
        f"{key!r} must be a {kind.__name__}, not {table[key]!r}"
        for key, kind in _KEYS.items()
        if key in table and not isinstance(table[key], kind)
    ]
    if faults:
        return faults
    for flag in table.get("flags", {}):
        if flag in _RESERVED_FLAGS:
            faults.append(f"flag {flag!r} does not belong into a profile: use {_RESERVED_FLAGS[flag]}")
        elif not _FLAG_NAME.fullmatch(flag):
            faults.append(f"flag {flag!r} is not written as vLLM's help has it: lower case, dashes, none in front")
    for variable, value in table.get("env", {}).items():
        if not _VARIABLE_NAME.fullmatch(variable):
            faults.append(f"{variable!r} is no name of an environment variable: upper case and underscores")
        elif not isinstance(value, str):
            faults.append(f"{variable} must be in quotes, as every environment variable is text; it is {value!r}")
    return faults
