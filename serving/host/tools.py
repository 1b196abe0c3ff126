"""Runs the container engine, compose and the canary, with a deadline; and ends what a killed run left running.

A program that is killed outright (SIGKILL, out of memory) leaves its children behind: a `compose up` that goes on would
start a container after the next run has cleaned up. So each child's process group is noted while it runs, with a token
in its environment by which the next run knows it again, whatever has that number by then.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from delivery.tools import EX_MISSING, EX_TIMEOUT, Done

if TYPE_CHECKING:
    from collections.abc import Mapping

GRACE_S = 10.0
TOKEN = "QWEN3_VL_HOST_RUN"  # noqa: S105  # a variable's name


@dataclass(frozen=True)
class Tools:
    """The way to run programs; `note` is a file of this host's state."""

    note: Path

    def run(self, argv: list[str], timeout_s: float, environ: Mapping[str, str] | None = None) -> Done:
        """Run a program to its end or its deadline; a fault becomes an exit code."""
        token = secrets.token_hex(8)
        self.note.write_text(f"{token}\n", encoding="utf-8")  # before there is anything to end
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, **(environ or {}), TOKEN: token},
            )
        except OSError as exc:
            self.note.unlink()
            return Done(EX_MISSING, err=f"{argv[0]} cannot be run: {exc.strerror}")
        self.note.write_text(f"{token} {process.pid}\n", encoding="utf-8")
        try:
            out, err = process.communicate(timeout=timeout_s)
            done = Done(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            _end(process.pid, token)
            process.communicate()
            done = Done(EX_TIMEOUT, err=f"{argv[0]} took more than {timeout_s:g} s and was stopped")
        except BaseException:
            _end(process.pid, token)
            process.communicate()
            raise
        finally:
            self.note.unlink(missing_ok=True)
        return done

    def end_orphans(self) -> bool:
        """End what a killed run had started; return whether there was anything."""
        try:
            token, *number = self.note.read_text(encoding="utf-8").split()
        except (FileNotFoundError, ValueError):
            return False
        group = int(number[0]) if number else None
        found = bool(_members(group, token))
        _end(group, token)
        self.note.unlink(missing_ok=True)
        return found


def _members(group: int | None, token: str) -> list[int]:
    """Processes that we started, of that group when it is known. Containers' monitors leave the group, and stay."""
    mark = f"{TOKEN}={token}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if group in {None, os.getpgid(int(folder.name))} and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def _end(group: int | None, token: str) -> None:
    """Stop a group of processes: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not (members := _members(group, token)):
            return
        for member in members:
            try:
                os.kill(member, number)
            except ProcessLookupError:
                continue
        until = time.monotonic() + GRACE_S
        while _members(group, token) and time.monotonic() < until:
            time.sleep(0.05)
