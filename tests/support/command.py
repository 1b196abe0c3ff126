"""`python -m gateway …` in the tests' own process: the second that a process takes to import everything is spared."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from unittest import mock

from gateway.__main__ import main


@dataclass(frozen=True, slots=True)
class Ran:
    """As subprocess.CompletedProcess has it."""

    returncode: int
    stdout: str
    stderr: str


def gateway_command(*words: object, **environ: str) -> Ran:
    """Run it to its end, with no GATEWAY_* variables but those in `environ`, and nobody at the keyboard."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, clean | environ, clear=True),
        mock.patch("sys.stdin", io.StringIO()),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            code = main([str(word) for word in words])
        except SystemExit as exc:
            code = int(exc.code or 0)  # argparse's
    return Ran(code, stdout.getvalue(), stderr.getvalue())
