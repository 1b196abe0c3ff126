"""`python -m gateway`: argv to a command.

Exit codes: 0 done, 1 failed, 2 usage, 3 a port is in use, 78 the configuration is at fault.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from gateway import __version__, audit_cli, cache_cli, keys_cli, metrics_reference, reference, report_cli, top_cli
from gateway.settings import SettingsError, load
from gateway.tracing import TracingUnavailable, check_installed, is_wanted

if TYPE_CHECKING:
    from collections.abc import Callable

EX_CONFIG = 78
"""sysexits.h: a supervisor need not try again, a person must look."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m gateway", description="The gateway in front of vLLM.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="run the gateway; settings come from GATEWAY_* variables")
    reference.add_parser(commands)
    metrics_reference.add_parser(commands)
    keys_cli.add_parser(commands)
    audit_cli.add_parser(commands)
    cache_cli.add_parser(commands)
    top_cli.add_parser(commands)
    report_cli.add_parser(commands)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parser().parse_args(argv)
    run = RUN.get(args.command)
    return _serve() if run is None else run(args)


RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "audit": audit_cli.run,
    "cache": cache_cli.run,
    "keys": keys_cli.run,
    "metrics": metrics_reference.run,
    "report": report_cli.run,
    "settings": reference.run,
    "top": top_cli.run,
}


def _serve() -> int:
    try:
        settings = load()
        if is_wanted(settings.otlp_endpoint, os.environ):
            check_installed()
    except (SettingsError, TracingUnavailable) as exc:
        print(f"The gateway cannot start:\n{exc}", file=sys.stderr)
        return EX_CONFIG
    from gateway.serve import serve  # noqa: PLC0415 - the other commands need none of the server

    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
