"""Becomes another program that dies with the demo: `python -m serving.demo.launch_child PARENT COMMAND [ARG…]`.

A launcher killed with SIGKILL cannot stop anything any more, so the kernel does it: it sends this process, which
is the started program from `exec` on, a SIGTERM when the parent is gone (prctl(2), PR_SET_PDEATHSIG). Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, argument: int) -> None:
    """Set a property of this process; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def main(argv: list[str]) -> None:
    """Ask for the signal, make sure that the parent still lives, and become the command."""
    parent, command = int(argv[0]), argv[1:]
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked: no signal would ever come
        sys.exit("the demo is gone already")
    os.execvp(command[0], command)  # noqa: S606  # the launcher's own command, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
