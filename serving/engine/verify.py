"""Checks this repository against the installed vLLM: `python -m serving.engine.verify`, with the engine's Python.

Three things drift silently when vLLM is bumped: a flag in a profile is renamed or its value no longer parses, an
environment variable of a profile is no longer read, a metric that a dashboard or an alert names is gone. Each profile's
command line goes through vLLM's own argument parser; variables are looked up in `vllm.envs`; every `vllm:…` name in the
repository's text files must occur in vLLM's source. A line that names an absent metric on purpose says `not in vLLM`.

Exit codes: 0 all known, 1 something is not (each fault on a line of its own), 127 vLLM is not installed here.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving import command, profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
PARSER_MODULE = "vllm.entrypoints.launchers.cli_args"
"""Where vLLM 0.32 builds its server's parser (`make_arg_parser`)."""

ON_PURPOSE = "not in vLLM"
TEXT_SUFFIXES = {".py", ".toml", ".json", ".yaml", ".yml", ".tpl", ".md", ".txt", ".sh", ".jsonnet", ".promql"}
SKIPPED_DIRS = {".git", ".demo", "node_modules", "__pycache__"}
_METRIC = re.compile(r"vllm:([a-z][a-z0-9_]*[a-z0-9])")
_SERIES_SUFFIX = re.compile(r"_(total|bucket|sum|count|created|info)$")


def text_files(root: Path) -> Iterator[Path]:
    """Yield the repository's text files; not those of virtual environments and other people's code."""
    for path in sorted(root.iterdir()):
        if path.is_dir():
            if path.name not in SKIPPED_DIRS and not path.name.startswith(".venv"):
                yield from text_files(path)
        elif path.suffix in TEXT_SUFFIXES:
            yield path


def metrics_in(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Map each metric named in the files (without `vllm:`) to the first `file:line` that names it, from `root`."""
    found: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if ON_PURPOSE not in line:
                for name in _METRIC.findall(line):
                    found.setdefault(name, f"{path.relative_to(root)}:{number}")
    return found


def unknown_metrics(named: Mapping[str, str], known: set[str]) -> list[str]:
    """Say which names vLLM does not expose. A counter is declared without `_total`, a histogram without `_bucket`."""
    return [
        f"vllm:{name} ({where}) is unknown to the installed vLLM: take its new name, or say `{ON_PURPOSE}` on the line"
        for name, where in sorted(named.items())
        if name not in known and _SERIES_SUFFIX.sub("", name) not in known
    ]


def unknown_variables(env: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Return the VLLM_* variables of a profile that vLLM never reads."""
    return sorted(name for name in env if name.startswith("VLLM_") and name not in set(known))


def parse_fault(parse: Callable[[list[str]], object], words: list[str]) -> str | None:
    """Return what an argparse parser says against the words, None when it takes them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parse(words)
    except SystemExit:
        return said.getvalue().strip().rpartition("\n")[2]
    except (TypeError, ValueError) as exc:  # vLLM validates some values outside of argparse
        return str(exc)
    return None


def _vllm_parser() -> Any:  # noqa: ANN401  # vLLM's own class, untyped here
    arguments = importlib.import_module("vllm.utils.argparse_utils")
    return importlib.import_module(PARSER_MODULE).make_arg_parser(arguments.FlexibleArgumentParser())


def faults(root: Path, vllm_dir: Path, say: Callable[[str], None] = print) -> list[str]:
    """Check everything; `say` gets one line for each thing checked."""
    found: list[str] = []
    parser = _vllm_parser()
    variables = importlib.import_module("vllm.envs").environment_variables
    for name in profile.names():
        loaded = profile.load(name)
        request = command.Request(model=None if loaded.model else "/models/any")
        invocation = command.build(loaded, request, python="python", root=str(root))
        words = list(invocation.argv[3:])  # without `python -m module`
        if fault := parse_fault(parser.parse_args, words):
            found.append(f"profile {name}: vLLM refuses its command line: {fault}")
        found += [
            f"profile {name}: vLLM reads no variable {variable}"
            for variable in unknown_variables(loaded.env, variables)
        ]
        say(f"profile {name}: {len(loaded.flags)} flags, {len(loaded.env)} variables")
    named = metrics_in(text_files(root), root)
    found += unknown_metrics(named, set(metrics_in(vllm_dir.rglob("*.py"), vllm_dir)))
    say(f"metrics: {len(named)} names of vllm: in this repository")
    return found


def main(root: Path = ROOT) -> int:
    """Check, print, and return an exit code."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        print("verify: no vLLM here: run `make engine`, then this with .venv-engine/bin/python", file=sys.stderr)
        return 127
    found = faults(root, Path(spec.origin).parent)
    for fault in found:
        print(f"verify: {fault}", file=sys.stderr)
    print(f"verify: {'ok' if not found else f'{len(found)} faults'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
