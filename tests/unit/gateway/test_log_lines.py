from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.log_lines import MAX_HELD_LINES, BatchHandler, JsonFormatter


@pytest.fixture
def out():
    return io.StringIO()


@pytest.fixture
def log(out):
    handler = BatchHandler()
    handler.setFormatter(JsonFormatter())
    handler.setStream(out)
    logger = logging.Logger("gateway.test")  # noqa: LOG001 - one that no other test sees
    logger.addHandler(handler)
    yield logger
    handler.close()


def lines(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


class TestFormat:
    def test_a_line_is_one_object_with_what_the_caller_adds(self, log, out):
        log.warning("%s\nend", "中", extra={"tenant": "t", "steps_ms": {"auth": 0.1}})
        (line,) = lines(out)
        assert line.pop("timestamp").endswith("+00:00")
        assert line == {
            "level": "WARNING", "logger": "gateway.test", "message": "中\nend", "tenant": "t", "steps_ms": {"auth": 0.1},
        }  # fmt: skip

    def test_a_trace_is_in_the_line(self, log, out):
        try:
            int("why")
        except ValueError:
            log.exception("failed")
        assert "ValueError: invalid literal" in lines(out)[0]["exc_info"]

    @pytest.mark.parametrize("value", ["\ud800", 2**70, Path("/x"), {1: 2}, float("nan")])
    def test_nothing_is_too_odd_to_be_written(self, log, out, value):
        log.error("%s", "odd", extra={"value": value})
        assert "odd" in lines(out)[0]["message"]


class TestBatches:
    async def test_a_line_of_no_hurry_is_written_a_little_later(self, log, out):
        log.info("one")
        log.info("two")
        assert not out.getvalue()
        async with asyncio.timeout(5):
            while not out.getvalue():
                await asyncio.sleep(0.01)
        assert [line["message"] for line in lines(out)] == ["one", "two"]

    async def test_a_warning_takes_what_waits_with_it(self, log, out):
        log.info("one")
        log.warning("two")
        assert [line["message"] for line in lines(out)] == ["one", "two"]

    async def test_no_more_than_so_many_wait(self, log, out):
        for _ in range(MAX_HELD_LINES):
            log.info("one")
        assert len(lines(out)) == MAX_HELD_LINES

    def test_without_an_event_loop_none_waits(self, log, out):
        log.info("one")
        assert [line["message"] for line in lines(out)] == ["one"]

    def test_a_line_that_cannot_be_written_fails_nobody(self, log, capsys):
        log.handlers[0].setStream(None)
        log.warning("one")
        assert "Logging error" in capsys.readouterr().err

    def test_a_process_that_ends_loses_no_line(self):
        program = (
            "from gateway.telemetry import configure_logging, ACCESS; configure_logging('info'); ACCESS.info('one')"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert json.loads(ended.stderr)["message"] == "one"
