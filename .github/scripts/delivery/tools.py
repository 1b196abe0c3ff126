"""Runs helm, kubectl and the canary, with a deadline. Faults become exit codes, so that deciding stays in one place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

EX_TIMEOUT, EX_MISSING = 124, 127
GRACE_S = 20.0
"""helm marks a release as failed after SIGTERM, which the next run can tell from one that is still under way."""


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.code == 0

    @property
    def reason(self) -> str:
        """The last line that it said, which for helm and kubectl is what was wrong."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1][:500] if lines else f"exit code {self.code}"


def run(argv: list[str], timeout_s: float, stdin: str | None = None) -> Done:
    """Run a program to its end or its deadline; show what it says as it is said to standard error."""
    try:
        process = subprocess.Popen(  # noqa: S603  # argv is built here
            argv,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",  # a chart's output must not be able to end this tool
            start_new_session=True,
        )
    except OSError as exc:
        return Done(EX_MISSING, err=f"{argv[0]} cannot be run: {exc.strerror}")
    try:
        out, err = process.communicate(stdin, timeout=timeout_s)
        done = Done(process.returncode, out, err)
    except subprocess.TimeoutExpired:
        _end(process)
        done = Done(EX_TIMEOUT, err=f"{argv[0]} took more than {timeout_s:g} s and was stopped")
    except BaseException:
        _end(process)
        raise
    print(done.err, end="", file=sys.stderr, flush=True)
    return done


def _end(process: subprocess.Popen[str]) -> None:
    """Stop a program with all that it started: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.communicate(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        break
