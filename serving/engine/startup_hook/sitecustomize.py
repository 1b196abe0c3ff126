"""Runs at the start of each of the engine's Python processes: asks for AMX, notes how long each phase took.

`serving run` puts this folder first into PYTHONPATH and names a file in SERVING_STARTUP_FILE. vLLM tells durations in
log records of several processes, so the records are looked at where they are made; its logging stays as it is. Each
phase is one line of JSON in that file. The report's author (serving/startup.py) takes the file away when the engine is
up, and the hook, finding it gone, stops looking. It must never be the reason that an engine does not start.

Standard library only: nothing of `serving` can be imported here.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import json
import logging
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "SERVING_STARTUP_FILE"

PHASES = (
    # What vLLM 0.32 logs, as it stands in its source (verify.py looks for it there) -> phase. {} is the seconds.
    ("Loading weights took {} seconds", "read_weights"),  # model_executor/model_loader/default_loader.py
    ("GiB memory and {} seconds", "load_model"),  # v1/worker/gpu_model_runner.py: building it and read_weights
    ("torch.compile took {} s in total", "compile"),  # compilation/monitor.py
    ("run together took {} s in total", "compile"),  # compilation/decorators.py
    ("Graph capturing finished in {} secs", "capture_graphs"),  # v1/worker/gpu_model_runner.py
    ("warmup model) took {} s", "init_engine"),  # v1/engine/core.py: everything after load_model
)
_PATTERNS = tuple((re.compile(re.escape(said).replace(re.escape("{}"), r"([\d.]+)")), phase) for said, phase in PHASES)


def phase_of(message: str) -> tuple[str, float] | None:
    """Return the phase whose end a message tells, and its seconds."""
    for pattern, phase in _PATTERNS:
        if found := pattern.search(message):
            return phase, float(found[1])
    return None


class Factory:
    """Makes log records as before, and looks at vLLM's."""

    def __init__(self, make: Callable[..., logging.LogRecord], file: str) -> None:
        self._make = make
        self._file: str | None = file

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401  # whatever logging passes
        """Make a record."""
        record = self._make(*args, **kwargs)
        if self._file is not None and record.name.startswith("vllm"):
            self._note(record, self._file)
        return record

    def _note(self, record: logging.LogRecord, file: str) -> None:
        try:
            if ended := phase_of(record.getMessage()):
                line = {"phase": ended[0], "seconds": ended[1], "at": time.time(), "process": record.process}
                # Without O_CREAT: a file that was taken away must not come back. One write a line, so that lines of
                # several processes do not mix.
                descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
                try:
                    os.write(descriptor, (json.dumps(line) + "\n").encode())
                finally:
                    os.close(descriptor)
        except Exception:  # noqa: BLE001  # logging must go on, whatever is wrong with the report
            self._file = None


def install(file: str | None) -> None:
    """Look at every log record from now on, if there is a file to write to."""
    if file and os.access(file, os.W_OK):
        logging.setLogRecordFactory(Factory(logging.getLogRecordFactory(), file))


ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA = 158, 0x1023, 18
"""Linux' Documentation/arch/x86/xstate.rst."""


def allow_amx() -> bool:
    """Ask Linux for AMX's tile registers; False where there are none. A process that uses them unasked dies of SIGILL.

    vLLM's attention on the CPU uses them wherever the CPU has them, and leaves it to others to ask: in the engine's
    container nobody had when the first request came. What is granted is one process's and its forks', so each asks.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        return bool(ctypes.CDLL(None).syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0)
    except (OSError, AttributeError):
        return False


def run_the_shadowed() -> None:
    """Run the sitecustomize that this one hides, such as a distribution's own."""
    here = str(Path(__file__).parent)
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", [path for path in sys.path if path != here])
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    allow_amx()
    install(os.environ.get(VARIABLE))
    run_the_shadowed()
