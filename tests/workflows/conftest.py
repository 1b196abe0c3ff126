from __future__ import annotations

import pytest

from tests.workflows.receiver import receiving


@pytest.fixture
def receiver():
    with receiving() as started:
        yield started
