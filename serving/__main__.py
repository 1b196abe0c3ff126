"""`python -m serving run | ready | plan | fetch | demo`: the command line. Each command has a module of its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from serving import arguments, plan_cli, profile, ready_cli, run_cli
from serving.weights import cli as fetch_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


EX_NO_READER = 128 + signal.SIGPIPE


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="python -m serving", description="The engine side of the stack.")
    commands = top.add_subparsers(dest="command", required=True, metavar="{run,ready,plan,fetch,demo}")
    for module in (run_cli, ready_cli, plan_cli, fetch_cli):
        module.add_parser(commands)
    demo = commands.add_parser("demo", help="start engine and gateway on this machine and ask three questions")
    demo.add_argument("--exit", action="store_true", help="stop after the questions; exit 0 if all answers were right")
    demo.add_argument("--port", type=arguments.port, default=8080, help="gateway (default: %(default)s)")
    demo.add_argument(
        "--metrics-port", type=arguments.port, default=9090, help="gateway's metrics (default: %(default)s)"
    )
    demo.add_argument("--engine-port", type=arguments.port, default=8000, help="vLLM (default: %(default)s)")
    demo.add_argument("--seed", type=int, help="draw these pictures again (default: fresh ones)")
    return top


def split_extra(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Split at the first `--`: ours, and vLLM's. argparse itself would let a flag of vLLM's shadow one of ours."""
    words = list(argv)
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], tuple(words[at + 1 :])


def demo(asked: argparse.Namespace) -> int:
    """Run the demo; imported late, because `run` in a container has none of what it needs."""
    from serving.demo import launch  # noqa: PLC0415

    ports = launch.Ports(asked.port, asked.metrics_port, asked.engine_port)
    return launch.main(ports, stop_after_answers=asked.exit, seed=asked.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return an exit code."""
    ours, extra = split_extra(sys.argv[1:] if argv is None else argv)
    try:
        top = parser()
    except profile.ProfileError as exc:
        return run_cli.fail(str(exc), run_cli.EX_CONFIG)
    asked = top.parse_args(ours)
    if extra and asked.command != "run":
        top.error("`--` and what follows it belong to `run`")
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": until_nobody_reads(lambda asked: run_cli.run(asked, extra, os.environ)),
        "ready": until_nobody_reads(ready_cli.run),
        "plan": until_nobody_reads(plan_cli.run),
        "fetch": fetch_cli.run,
        "demo": demo,
    }
    return commands[asked.command](asked)


def until_nobody_reads(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Make a command that prints end quietly when its reader has gone (`plan --json | head -1`), as SIGPIPE would.

    The signal itself stays as it is: the engine that `run` becomes would inherit it.
    """

    def run(asked: argparse.Namespace) -> int:
        try:
            code = command(asked)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered would raise again when the interpreter ends.
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # os.devnull is no path of ours
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            return EX_NO_READER
        return code

    return run


if __name__ == "__main__":
    sys.exit(main())
