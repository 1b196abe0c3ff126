from __future__ import annotations

import pytest

from tests.host.machine import machine


@pytest.fixture(scope="session")
def host():
    with machine() as found:
        yield found
