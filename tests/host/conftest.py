from __future__ import annotations

import signal

import pytest

from tests.host.machine import machine


@pytest.fixture(scope="session")
def host():
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)
    with machine() as found:
        yield found


def _as_interrupt(*_):
    """An interrupted run takes everything away, as after Ctrl-C."""
    raise KeyboardInterrupt
