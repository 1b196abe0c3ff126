"""The demo stack as a target: the one that runs, or one started for the run and stopped after it."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from serving.demo.launch_plan import DEMO_KEY, HOST, Ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_DEADLINE_S = 400.0
STOP_DEADLINE_S = 90.0
POLL_S = 0.3
PROBE_S = 3.0
OK = 200
LOG_TAIL = 3000


class DemoError(Exception):
    """The demo does not run and could not be started."""


@contextlib.contextmanager
def running(folder: Path, ports: Ports | None = None) -> Iterator[tuple[str, str, str]]:
    """Give the demo's URL, its metrics' URL and its key, for the length of the block. Raises DemoError."""
    ports = ports or Ports()
    address = f"http://{HOST}:{ports.gateway}", f"http://{HOST}:{ports.metrics}/metrics", DEMO_KEY
    if ready(ports.gateway):
        yield address
        return
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "demo.log"
    print(f"no demo runs: starting one, which takes half a minute (log: {log})", flush=True)
    with log.open("wb") as output:
        # Of a group of its own: Ctrl-C is for the run, which stops the demo after it.
        child = subprocess.Popen(command(ports), stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait(child, ports.gateway, log)
        yield address
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def command(ports: Ports) -> list[str]:
    """Make the command that starts it."""
    argv = [sys.executable, "-m", "serving", "demo", "--port", str(ports.gateway)]
    return [*argv, "--metrics-port", str(ports.metrics), "--engine-port", str(ports.engine)]


def ready(port: int) -> bool:
    """Whether a gateway with an engine behind it answers on loopback."""
    connection = http.client.HTTPConnection(HOST, port, timeout=PROBE_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    # Its own three questions first, so that they do not stand beside the load.
    deadline = time.monotonic() + START_DEADLINE_S
    while not (ready(port) and "answers are right" in log.read_text(encoding="utf-8", errors="replace")):
        if child.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
            raise DemoError(f"the demo did not start; give --url, or see `make demo`:\n{tail}")
        time.sleep(POLL_S)
