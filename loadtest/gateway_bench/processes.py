"""Processes on chosen cores, and what they cost. Linux only."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MIB = 1 << 20
READY_S = 120.0
"""LiteLLM takes most of it on a slow machine."""
STOP_S = 5.0
CPU_CLOCK = 2
"""CPUCLOCK_SCHED, as clock_getcpuclockid(3) puts it into a process's clock: nanoseconds, ended threads included."""
HERE = Path(__file__).parent


class BenchError(Exception):
    """The benchmark cannot go on; the message says what to do."""


def build(name: str, folder: Path) -> Path:
    """The program of `name`.c in `folder`, compiled if its sources are newer. Raises BenchError."""
    source, program = HERE / f"{name}.c", folder / name
    newest = max(source.stat().st_mtime, (HERE / "wire.h").stat().st_mtime)
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    if (gcc := shutil.which("gcc")) is None:
        raise BenchError("gcc is needed for the load generator and the simulated engine: apt-get install gcc libc6-dev")
    made = subprocess.run([gcc, "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    if made.returncode:
        raise BenchError(f"{source.name} cannot be compiled; glibc 2.35 or newer is needed. gcc says:\n{made.stderr}")
    return program


def start(argv: Sequence[str], cores: Sequence[int], env: Mapping[str, str], log: Path, cwd: Path) -> psutil.Popen:
    """A process group of its own on `cores`, its output in `log`. Raises BenchError when there is no such program."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # What is started inherits it, with all its threads.
    try:
        with log.open("wb") as output:
            return psutil.Popen(
                argv,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                process_group=0,
            )
    except OSError as exc:
        raise BenchError(f"{argv[0]} cannot be started: {exc.strerror}.") from exc
    finally:
        os.sched_setaffinity(0, own)


def check_free(port: int) -> None:
    """Raise BenchError when something listens there: it would be measured in place of what is to be."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise BenchError(
                f"Port {port} is in use: stop what listens there, or give --port or --engine-port."
            ) from exc


def stop(process: psutil.Popen) -> None:
    """End the process and its group."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(psutil.TimeoutExpired, subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return


def _family(pid: int) -> Iterator[psutil.Process]:
    process = psutil.Process(pid)
    yield process
    yield from process.children(recursive=True)


def cpu_s(pid: int) -> float:
    """CPU seconds of the process and its children that are alive."""
    spent = 0.0
    for process in _family(pid):
        with contextlib.suppress(OSError):  # It has ended.
            spent += time.clock_gettime(~process.pid << 3 | CPU_CLOCK)
    return spent


def memory_mib(pid: int) -> float:
    """Resident memory of the process and its children now."""
    return sum(process.memory_info().rss for process in _family(pid)) / MIB


def peak_mib(pid: int) -> float:
    """The most that each of them ever had, together."""
    lines = [line for p in _family(pid) for line in Path(f"/proc/{p.pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def status_of(port: int, key: str, body: bytes) -> int:
    """The status of one request; 0 when there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    try:
        connection.request("POST", "/v1/chat/completions", body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def wait_ready(port: int, key: str, body: bytes, process: psutil.Popen, log: Path) -> None:
    """Until it answers with 200. Raises BenchError, with the end of its log."""
    end = time.monotonic() + READY_S
    while (status := status_of(port, key, body)) != 200:  # noqa: PLR2004 - OK
        if process.poll() is not None or time.monotonic() > end:
            tail = log.read_text(errors="replace")[-2000:]
            why = "has ended" if process.poll() is not None else f"does not answer (status {status})"
            raise BenchError(f"It {why}; its log ({log}) ends with:\n{tail}")
        time.sleep(0.1)


def generate(argv: Sequence[str], core: int, seconds: float, folder: Path) -> dict[str, float | str]:
    """What the load generator prints. Raises BenchError when it fails."""
    log = folder / "load.log"
    process = start(argv, [core], {}, log, folder)
    try:
        process.wait(seconds + 60)
        found: dict[str, float | str] = json.loads(log.read_text())
    except (psutil.TimeoutExpired, subprocess.TimeoutExpired, json.JSONDecodeError) as exc:
        raise BenchError(f"The load generator failed: {log.read_text()[-500:]}") from exc
    finally:
        stop(process)
    return found
