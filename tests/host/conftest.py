from __future__ import annotations

import contextlib
import os
import signal

import psutil
import pytest

from tests.host.machine import machine


@pytest.fixture(scope="session")
def host():
    with contextlib.ExitStack() as held:

        def give_up(number, _):
            """End at once, and take everything away: no test in an event loop takes an interrupt well."""
            _end_deployments()
            held.close()
            os._exit(128 + number)

        found = held.enter_context(machine())
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, give_up)
        yield found


def pytest_sessionstart():
    """While the host is being set up, an interrupt is as good as Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)


def _as_interrupt(*_):
    raise KeyboardInterrupt


def _end_deployments():
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "serving.host" in child.cmdline():
                child.kill()
