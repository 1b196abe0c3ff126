from __future__ import annotations

import pytest

from tests.support.redis_server import RedisServer

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figures(request):
    """Takes one line of figures; all are shown at the end of the run."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.section("figures")
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)


@pytest.fixture
def redis_server():
    """A Redis of the test's own: it may be killed."""
    with RedisServer() as server:
        yield server
