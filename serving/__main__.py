"""`python -m serving run | demo`: the command line. The decisions are in command.py, profile.py and demo/launch.py."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serving import command, profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EX_USAGE, EX_CONFIG, EX_NOT_EXECUTABLE, EX_NOT_INSTALLED = 2, 78, 126, 127
ROOT = Path(__file__).resolve().parent.parent

RUN_HELP = """\
Replaces itself by vLLM's OpenAI-compatible server, so signals reach vLLM and its exit code is yours.

Every value of a profile stands with its reason in serving/profiles/*.toml. What follows `--` goes to vLLM as it is,
last, and wins. Variables that are set already win over the profile's. Keys go into VLLM_API_KEY, never into argv.
The engine's Python: $SERVING_ENGINE_PYTHON; else this one, when it has vLLM; else .venv-engine/bin/python.
"""
RUN_EXIT_CODES = """\
exit codes:
  2    the command line is wrong
  78   a profile, a checkpoint or the environment is wrong (the message says which)
  126  the engine's Python cannot be executed
  127  the engine is not installed: run `make engine`
  any other code is vLLM's own: 0 after a clean stop, 1 when it fails to start, 128 + n when signal n kills it

example:
  python -m serving run --profile l4 --model /models/qwen3-vl-8b-fp8 --host 0.0.0.0 -- --max-num-seqs 16
"""


def engine_python(environ: Mapping[str, str], root: Path = ROOT) -> str:
    """Choose the interpreter that has vLLM, as RUN_HELP says."""
    if chosen := environ.get("SERVING_ENGINE_PYTHON"):
        return chosen
    if importlib.util.find_spec("vllm"):
        return sys.executable
    return str(root / ".venv-engine" / "bin" / "python")


def port(text: str) -> int:
    """Parse a TCP port; argparse makes the ValueError a usage error."""
    number = int(text)
    if not 0 < number < 65536:  # noqa: PLR2004  # 16 bits
        raise ValueError
    return number


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="python -m serving", description="The engine side of the stack.")
    commands = top.add_subparsers(dest="command", required=True, metavar="{run,demo}")
    run = commands.add_parser(
        "run",
        help="run vLLM as a profile says",
        description=RUN_HELP,
        epilog=RUN_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    titles = ", ".join(f"{name} ({profile.load(name).title})" for name in profile.names())
    run.add_argument("--profile", required=True, choices=profile.names(), metavar="NAME", help=titles)
    run.add_argument("--model", help="checkpoint: a directory or a hub name (default: the profile's)")
    run.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    run.add_argument("--port", type=port, default=8000, help="port to listen on (default: %(default)s)")
    run.add_argument("--served-model-name", nargs="+", default=(), metavar="NAME", help="what clients call the model")
    run.add_argument("--print", action="store_true", help="print the command as shell, and do not run it")
    demo = commands.add_parser("demo", help="start engine and gateway on this machine and ask three questions")
    demo.add_argument("--exit", action="store_true", help="stop after the questions; exit 0 if all answers were right")
    demo.add_argument("--port", type=port, default=8080, help="gateway (default: %(default)s)")
    demo.add_argument("--metrics-port", type=port, default=9090, help="gateway's metrics (default: %(default)s)")
    demo.add_argument("--engine-port", type=port, default=8000, help="vLLM (default: %(default)s)")
    demo.add_argument("--seed", type=int, help="draw these pictures again (default: fresh ones)")
    return top


def split_extra(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Split at the first `--`: ours, and vLLM's. argparse itself would let a flag of vLLM's shadow one of ours."""
    words = list(argv)
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], tuple(words[at + 1 :])


def run(arguments: argparse.Namespace, extra: tuple[str, ...], environ: Mapping[str, str]) -> int:
    """Become the engine; returns only an exit code for what stands in the way."""
    try:
        invocation = command.build(
            profile.load(arguments.profile),
            command.Request(
                host=arguments.host,
                port=arguments.port,
                model=arguments.model,
                served_model_names=tuple(arguments.served_model_name),
                extra=extra,
            ),
            python=engine_python(environ),
            root=str(ROOT),
            inherited=environ,
        )
    except (profile.ProfileError, command.CommandError) as exc:
        return fail(str(exc), EX_CONFIG)
    if arguments.print:
        print(invocation.render())
        return 0
    checkpoint = command.local_path(invocation.argv)
    if checkpoint is not None and not (Path(checkpoint) / "config.json").is_file():
        return fail(
            f"{checkpoint} has no config.json, so it is no checkpoint: put one there or give --model", EX_CONFIG
        )
    try:
        os.execvpe(invocation.argv[0], invocation.argv, {**environ, **invocation.env})  # noqa: S606  # argv is built above
    except FileNotFoundError:
        return fail(f"no engine is installed ({invocation.argv[0]} is missing): run `make engine`", EX_NOT_INSTALLED)
    except OSError as exc:
        return fail(f"{invocation.argv[0]} cannot be executed: {exc.strerror}", EX_NOT_EXECUTABLE)


def fail(message: str, code: int) -> int:
    """Say what stands in the way; return the exit code."""
    print(f"serving: {message}", file=sys.stderr)
    return code


def demo(arguments: argparse.Namespace) -> int:
    """Run the demo; imported late, because `run` in a container has none of what it needs."""
    from serving.demo import launch  # noqa: PLC0415

    ports = launch.Ports(arguments.port, arguments.metrics_port, arguments.engine_port)
    return launch.main(ports, stop_after_answers=arguments.exit, seed=arguments.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return an exit code."""
    ours, extra = split_extra(sys.argv[1:] if argv is None else argv)
    try:
        top = parser()
    except profile.ProfileError as exc:
        return fail(str(exc), EX_CONFIG)
    arguments = top.parse_args(ours)
    if arguments.command == "run":
        return run(arguments, extra, os.environ)
    if extra:
        top.error("`--` and what follows it belong to `run`")
    return demo(arguments)


if __name__ == "__main__":
    sys.exit(main())
