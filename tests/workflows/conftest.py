from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflows.receiver import receiving
from tests.workflows.recorder import Recorder

HERE = Path(__file__).parent
LAST = "test_every_script.py"


@pytest.fixture
def receiver():
    with receiving() as started:
        yield started


def pytest_configure(config):
    config.recorder = Recorder()


def pytest_unconfigure(config):
    config.recorder.end()


@pytest.fixture
def recorder(request):
    return request.config.recorder


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """What asks which scripts the tests have run comes last, and only where all of them run."""
    last = [item for item in items if item.path.parent == HERE and item.path.name == LAST]
    rest = [item for item in items if item not in last]
    asked = {item.path for item in rest if item.path.parent == HERE}
    whole = asked == {path for path in HERE.glob("test_*.py") if path.name != LAST}
    if not whole or config.option.keyword or config.option.markexpr or any("::" in word for word in config.args):
        unknown = [item for item in last if "recorder" in item.fixturenames]
        config.hook.pytest_deselected(items=unknown)
        last = [item for item in last if item not in unknown]
    items[:] = rest + last
