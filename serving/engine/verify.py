"""Checks this repository against the installed vLLM: `python -m serving.engine.verify`, with the engine's Python.

What drifts silently when vLLM is bumped, and is checked here:
- flags: the command line of each profile, and of what `serving run` adds to one, goes through vLLM's own argument
  parser and its own checks; parsers and load formats are looked up by name, which vLLM does only once it starts;
- variables: those of the profiles, and every VLLM_… name in the repository's text files, must be read by vLLM;
- defaults: what a profile's comment calls vLLM's default is it, on that profile's GPU;
- metrics: every `vllm:…` name in the repository's text files must be in its source;
- words: log messages that the start-up report reads, attention backends that `serving run` judges by, variables of the
  caches must be in its source.
A line that names something absent on purpose says `not in vLLM`.

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

from serving import command, fitness, overrides, profile
from serving.engine import defaults
from serving.engine.startup_hook import sitecustomize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
PARSER_MODULE = "vllm.entrypoints.launchers.cli_args"
"""Where vLLM 0.32 builds its server's parser (make_arg_parser) and checks what it read (validate_parsed_serve_args)."""

ON_PURPOSE = "not in vLLM"
TEXT_SUFFIXES = {
    *(".py", ".toml", ".json", ".yaml", ".yml", ".tpl", ".md", ".txt", ".sh", ".jsonnet", ".promql"),
    *(".service", ".env", ".cfg", ".conf", ".rules", ".js", ".html"),
}
TEXT_NAMES = {"Dockerfile", "Makefile"}
SKIPPED_DIRS = {"node_modules", "__pycache__"}
OWN_HIDDEN_DIRS = {".github", ".ci"}
"""All others are made by tools, environments with other people's code among them."""
_METRIC = re.compile(r"vllm:([a-z][a-z0-9_]*[a-z0-9])")
_SERIES_SUFFIX = re.compile(r"_(total|bucket|sum|count|created|info)$")
_VARIABLE = re.compile(r"\b(VLLM_[A-Z0-9_]*[A-Z0-9])\b")
_JOINT = re.compile(r'"\s*\n\s*f?"')

VARIANTS = (
    command.Request(model="s3://models/qwen3-vl-8b"),
    command.Request(model="/models/qwen3-vl-8b-thinking", load_format="sharded_state", served_model_names=("a", "b")),
    command.Request(model="/models/any", extra=("--enable-lora", "--max-lora-rank", "8", "--lora-modules", "a=/b")),
)
"""What `serving run` and docs/serving.md add to a profile."""


EXAMPLES = {
    "--dtype": "half",
    "--kv-cache-dtype": "fp8",
    "--attention-backend": "FLASHINFER",
    "--load-format": "auto",
    "--mm-processor-kwargs": "{}",
}
"""A value for each flag that overrides.py reads and that takes no number."""


def text_files(root: Path) -> Iterator[Path]:
    """Yield the repository's text files; not those of virtual environments and other people's code."""
    for path in sorted(root.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name not in OWN_HIDDEN_DIRS
            if path.name not in SKIPPED_DIRS and not hidden:
                yield from text_files(path)
        elif path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES:
            yield path


def named_in(files: Iterable[Path], root: Path, pattern: re.Pattern[str] = _METRIC) -> dict[str, str]:
    """Map each name that the pattern finds (its first group) to the first `file:line` that has it, from `root`."""
    found: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if ON_PURPOSE not in line:
                for name in pattern.findall(line):
                    found.setdefault(name, f"{path.relative_to(root)}:{number}")
    return found


def unknown_metrics(named: Mapping[str, str], known: set[str]) -> list[str]:
    """Say which names vLLM does not expose. A counter is declared without `_total`, a histogram without `_bucket`."""
    return [
        f"vllm:{name} ({where}) is unknown to the installed vLLM: take its new name, or say `{ON_PURPOSE}` on the line"
        for name, where in sorted(named.items())
        if name not in known and _SERIES_SUFFIX.sub("", name) not in known
    ]


def unknown_variables(named: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Say which VLLM_* variables vLLM never reads."""
    return [
        f"{name} ({where}) is read nowhere in the installed vLLM: take its new name, or say `{ON_PURPOSE}` on the line"
        for name, where in sorted(named.items())
        if name.startswith("VLLM_") and name not in set(known)
    ]


def missing_words(source: str) -> list[str]:
    """Say which words that `serving` relies on are not in vLLM's source, given with its split strings joined."""
    wanted = {re.escape(variable) for variable in command.CACHES if variable.startswith(("TORCH", "TRITON"))}
    wanted |= set(fitness.FP8_KV_CAPABILITY)
    wanted |= {re.escape(text).replace(re.escape("{}"), r"%[.\d]*[fds]") for text, _ in sitecustomize.PHASES}
    missing = [word for word in sorted(wanted) if not re.search(word, source)]
    return [f"`{word}` is nowhere in the installed vLLM's source" for word in missing]


def parse_fault(parse: Callable[[list[str]], object], words: list[str]) -> str | None:
    """Return what an argparse parser says against the words, None when it takes them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parse(words)
    except SystemExit:
        return said.getvalue().strip().rpartition("\n")[2]
    except (TypeError, ValueError, KeyError) as exc:  # vLLM validates some values outside of argparse
        return str(exc)
    return None


def _parser() -> Any:  # noqa: ANN401  # vLLM is not there when types are checked
    flexible = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    return importlib.import_module(PARSER_MODULE).make_arg_parser(flexible())


def _acceptor(parser: Any) -> Callable[[list[str]], object]:  # noqa: ANN401
    """Return vLLM's own way of reading its command line, with the look-ups that it puts off until it starts."""
    cli = importlib.import_module(PARSER_MODULE)
    loaders: Any = importlib.import_module("vllm.model_executor.model_loader")
    registered = {
        "tool_call_parser": set(importlib.import_module("vllm.tool_parsers").ToolParserManager.list_registered()),
        "reasoning_parser": set(importlib.import_module("vllm.reasoning").ReasoningParserManager.list_registered()),
        "load_format": {"auto", *loaders._LOAD_FORMAT_TO_MODEL_LOADER},  # noqa: SLF001  # there is no public list
    }

    def accept(words: list[str]) -> object:
        parsed = parser.parse_args(words)
        cli.validate_parsed_serve_args(parsed)
        for name, known in registered.items():
            if (value := getattr(parsed, name, None)) and value not in known:
                raise ValueError(f"{value!r} is no {name.replace('_', ' ')} of the installed vLLM")
        return parsed

    return accept


def flag_faults(root: Path, accept: Callable[[list[str]], object], say: Callable[[str], None]) -> Iterator[str]:
    """Put every profile's command line, and the variants of one, through vLLM's parser."""
    for name in profile.names():
        loaded = profile.load(name)
        request = command.Request(model=None if loaded.model else "/models/any")
        for asked in (request, *VARIANTS):
            invocation = command.build(loaded, asked, python="python", root=str(root))
            words = list(invocation.argv[3:])  # without `python -m module`
            if fault := parse_fault(accept, words):
                also = "" if asked is request else f" with --model {asked.model}"
                yield f"profile {name}{also}: vLLM refuses its command line: {fault}"
        lines = 1 + len(VARIANTS)
        say(f"profile {name}: {len(loaded.flags)} flags, {len(loaded.env)} variables, {lines} command lines")
    read = [f"--{flag}" for flag in sorted(overrides.NUMBERS | overrides.WORDS | overrides.JSON)]
    for flag in (*read, *overrides.SHORT):
        if fault := parse_fault(accept, ["--model", "/models/any", flag, EXAMPLES.get(flag, "1")]):
            yield f"serving/overrides.py reads {flag}, which vLLM refuses: {fault}"


def faults(root: Path, vllm_dir: Path, say: Callable[[str], None] = print) -> list[str]:
    """Check everything; `say` gets one line for each thing checked."""
    parser = _parser()
    found = list(flag_faults(root, _acceptor(parser), say))
    found += defaults.faults(defaults.reader(parser))
    say("defaults: those that the profiles' comments name")
    sources = {path: path.read_text(encoding="utf-8", errors="replace") for path in sorted(vllm_dir.rglob("*.py"))}
    texts = list(text_files(root))

    variables = named_in(texts, root, _VARIABLE)
    read = {*importlib.import_module("vllm.envs").environment_variables}
    read |= {name for text in sources.values() for name in _VARIABLE.findall(text)}
    for name in profile.names():
        variables |= dict.fromkeys(profile.load(name).env, f"profile {name}")
    found += unknown_variables(variables, read)
    say(f"variables: {len(variables)} names in this repository")

    metrics = named_in(texts, root)
    found += unknown_metrics(metrics, {name for text in sources.values() for name in _METRIC.findall(text)})
    say(f"metrics: {len(metrics)} names of vllm: in this repository")

    found += missing_words(_JOINT.sub("", "\n".join(sources.values())))
    say(f"words: {len(sitecustomize.PHASES)} log messages and what `serving run` judges by")
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
