"""`python -m serving ready`: exit code 0 when the engine has just generated one token. For probes and health checks."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING

from serving import arguments, readiness

if TYPE_CHECKING:
    from collections.abc import Callable

EX_NOT_READY = 1
POLL_S = 0.5

HELP = """\
Asks the engine for one token and prints one line of JSON. /health is not enough: vLLM answers it while its core hangs.
The key, when the engine has one, is taken from VLLM_API_KEY.
"""
EPILOG = """\
exit codes:
  0    a token came
  1    none did; `reason` in the line says why
  2    the command line is wrong

examples:
  python -m serving ready --port 8000
  python -m serving ready --wait-s 1200    until the first token, as a startup probe or in a script
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ready` to the command line of `python -m serving`."""
    ready = subparsers.add_parser(
        "ready",
        help="ask the engine for one token",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ready.add_argument("--host", default="127.0.0.1", help="where the engine listens (default: %(default)s)")
    ready.add_argument("--port", type=arguments.port, default=8000, help="its port (default: %(default)s)")
    ready.add_argument("--timeout-s", type=arguments.seconds, default=5.0, help="for the token (default: %(default)s)")
    ready.add_argument("--wait-s", type=arguments.seconds, default=0.0, help="ask again so long (default: once)")


def run(
    asked: argparse.Namespace,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Ask, again until the deadline when so told; print the outcome; return the exit code."""
    deadline = clock() + asked.wait_s
    while True:
        try:
            took_s = readiness.generate_one_token(
                asked.host, asked.port, os.environ.get("VLLM_API_KEY"), asked.timeout_s
            )
        except readiness.NotReady as exc:
            if clock() < deadline:
                sleep(POLL_S)
                continue
            print(json.dumps({"ready": False, "reason": str(exc)}))
            return EX_NOT_READY
        print(json.dumps({"ready": True, "seconds": round(took_s, 3)}))
        return 0
