from __future__ import annotations

import contextlib
import signal

import psutil
import pytest

from tests.host.machine import machine


@pytest.fixture(scope="session")
def host():
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)
    with machine() as found:
        yield found


def _as_interrupt(*_):
    """An interrupted run takes everything away, as after Ctrl-C; it does not wait for the deployment that is under way."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "serving.host" in child.cmdline():
                child.kill()
    raise KeyboardInterrupt
