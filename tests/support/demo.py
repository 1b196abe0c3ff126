"""The demo as a process, started as `make demo` starts it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from tests.support.ports import free_ports

ROOT = Path(__file__).parents[2]
READY = "Ctrl-C stops everything"
START_DEADLINE_S = 240
SEED = 1_700_000_000


PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    """Stop the demo when the tests are killed: nothing would end it otherwise."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Demo:
    """A `python -m serving demo` process; its output is read as it comes."""

    def __init__(self, *options):
        self.port, self.metrics_port, self.engine_port = free_ports(3)
        ports = [("--port", self.port), ("--metrics-port", self.metrics_port), ("--engine-port", self.engine_port)]
        argv = [sys.executable, "-m", "serving", "demo", "--seed", str(SEED), *options]
        argv += [str(word) for pair in ports for word in pair]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self.process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into libc, no locks
        )
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.engine_url = f"http://127.0.0.1:{self.engine_port}"
        self.lines = []
        self.ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if READY in line:
                self.ready.set()
        self.ready.set()

    @property
    def output(self):
        return "".join(self.lines)

    def wait_ready(self):
        assert self.ready.wait(START_DEADLINE_S), self.output
        assert self.process.poll() is None, self.output
        assert READY in self.output, self.output
        return self

    def wait(self, timeout_s):
        code = self.process.wait(timeout_s)
        self._reader.join(10)
        return code

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.wait(60)
        finally:
            self.process.kill()
            self.process.wait(10)
            self._reader.join(10)
            self.process.stdout.close()


@contextlib.contextmanager
def started(*options):
    demo = Demo(*options)
    try:
        yield demo
    finally:
        demo.stop()
