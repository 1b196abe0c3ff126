"""`make demo` as its user sees it."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.support.demo import started


def gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=15)
    return not alive


def test_it_shows_its_progress_and_how_to_go_on(demo):
    for words in (
        "question 1",
        "question 2",
        "question 3",
        "streamed",
        ", zh",
        "picture",
        "latency",
        "curl",
        "OpenAI(",
    ):
        assert words in demo.output


@pytest.mark.timeout(300)
def test_with_exit_it_ends_with_0_when_all_answers_are_right_and_leaves_nothing_behind():
    with started("--exit") as demo:
        family = []
        while demo.process.poll() is None:
            family = demo.family() or family
            time.sleep(0.5)
        assert demo.wait(10) == 0, demo.output
        assert "3 of 3 answers are right" in demo.output
        assert len(family) >= 3
        assert gone(family)


@pytest.mark.timeout(300)
def test_an_engine_that_is_killed_ends_it_within_ten_seconds_with_the_reason():
    with started() as demo:
        demo.wait_ready()
        family = demo.family()
        engine = next(process for process in family if "vllm.entrypoints" in " ".join(process.cmdline()))
        engine.send_signal(signal.SIGKILL)
        began = time.monotonic()
        assert demo.wait(60) != 0
        assert time.monotonic() - began < 10  # what the demo promises; it usually takes two
        assert "engine" in demo.lines[-1]
        assert "killed" in demo.output or "SIGKILL" in demo.output, demo.output
        assert gone(family)
