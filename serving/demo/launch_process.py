"""One child of the demo, with everything it starts: run, watched, and stopped so that nothing is left of it.

A child leads a session of its own, so Ctrl-C in the terminal reaches the launcher only and the children stop in order.
vLLM's own children outlive it when it is killed; they are found by their process group, and the launcher adopts them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from serving.demo import launch_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TICK_S = 0.05


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, to reap them even in a container that has no init."""
    launch_child.prctl(launch_child.PR_SET_CHILD_SUBREAPER, 1)


def describe_exit(code: int) -> str:
    """Put a Popen return code into words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@dataclass
class Child:
    """A running program with its log."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Child:
        """Start a program in a session of its own, its output in `log`; it gets SIGTERM should this process die.

        Call it from the main thread: the kernel's signal follows the thread that started the child.
        """
        wrapped = [sys.executable, "-m", "serving.demo.launch_child", str(os.getpid()), *argv]
        with log.open("wb") as output:
            process = subprocess.Popen(
                wrapped,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(name, log, process)

    @property
    def fault(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self.process.poll()
        return None if code is None else f"the {self.name} {describe_exit(code)}"

    def stop(self, grace_s: float) -> bool:
        """End it and its whole group: SIGTERM, at most `grace_s`, then SIGKILL. True when SIGTERM was enough."""
        self.process.terminate()
        try:
            self.process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            clean = False
        else:
            clean = True
        self._sweep()
        return clean

    def _sweep(self) -> None:
        """Kill and reap whatever is left of the group (its id stays taken as long as one member is)."""
        group = self.process.pid
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                reaped, _ = os.waitpid(-group, os.WNOHANG)
            except ChildProcessError:
                return
            if not reaped:
                time.sleep(TICK_S)

    def tail(self, lines: int = 20) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def rss_bytes(self) -> int:
        """Sum the resident memory of it and its descendants. Shared pages count for each process."""
        total = 0
        try:
            root = psutil.Process(self.process.pid)
            for process in [root, *root.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
        except psutil.NoSuchProcess:
            return total
        return total
