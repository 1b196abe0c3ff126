"""The script is killed outright at ten moments of a deployment, under load; a plain second run completes what was asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass

import psutil
import pytest

from tests.host.load import under_load
from tests.host.machine import tell
from tests.host.state import runs_alone

pytestmark = pytest.mark.timeout(1800)

KILLS = 10
SEED = 20261122
CLIENTS = 2


def quietly(function, *words):
    return asyncio.to_thread(function, *words)


async def test_killed_at_ten_moments_a_second_run_completes_it_and_no_request_is_lost(host):
    chosen = random.Random(SEED)
    await quietly(host.serve, "v1")
    duration_s = await timed(host, "v2")
    # One moment in each tenth of a deployment, in a mixed order.
    moments = [(part + chosen.random()) / KILLS for part in range(KILLS)]
    chosen.shuffle(moments)
    target, found, orphans = "v1", [], 0
    tell(f"{KILLS} kills over a deployment of {duration_s:.0f} s; seed {SEED}")
    async with under_load(host.url, CLIENTS) as load:
        for number, moment in enumerate(moments, 1):
            while (killed := await kill(host, target, moment * duration_s, whole=number % 2 == 0)) is None:
                # It ended before: the machine was faster than when the time was taken.
                duration_s = await timed(host, other(target))
            attempt = await quietly(check_killed, host, target)
            rerun_s, said = await deployed(host, target)
            orphans += "ended what a killed run had left running" in said
            await quietly(runs_alone, host, target)
            check_written_down(host, target, attempt)
            found.append(killed)
            tell(f"kill {number} of {KILLS}: {killed}; the second run took {rerun_s:.0f} s; {load}")
            target = other(target)
    tell(f"killed {len(found)} times, {orphans} of them left a child running, which the second run ended: {load}")
    assert len(found) == KILLS
    assert load.failed == []
    assert load.asked > KILLS
    # Spread over the steps, and not all in one.
    assert len({killed.step for killed in found}) > KILLS // 3


def other(version):
    return {"v1": "v2", "v2": "v1"}[version]


@dataclass(frozen=True)
class Killed:
    """A kill that was carried out."""

    version: str
    whole: bool
    after_s: float
    step: str
    """What was under way, as the program said last."""

    def __str__(self) -> str:
        whom = "with all its children" if self.whole else "alone"
        return f"{self.version}, {whom}, after {self.after_s:.1f} s, at: {self.step}"


async def kill(host, version, delay_s, *, whole):
    """Begin a deployment and kill the script; None when it has ended by then.

    Its process group alone, which leaves its children to themselves; or, `whole`, all that it has started, as when memory
    is out or systemd stops a unit.
    """
    began, before = time.monotonic(), len(host.killed())
    program = host.begin(*host.words(version))
    with contextlib.suppress(subprocess.TimeoutExpired):
        await quietly(program.wait, delay_s)
    if program.poll() is not None:
        return None
    children = psutil.Process(program.pid).children(recursive=True)
    os.killpg(program.pid, signal.SIGKILL)
    after_s = time.monotonic() - began
    for child in children if whole else []:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    assert await quietly(program.wait) == -signal.SIGKILL
    steps = [line for line in host.killed()[before:] if line.startswith("host: ")]
    step = (steps[-1] if steps else "host: before the first step").removeprefix("host: ")
    return Killed(version, whole, after_s, step)


def check_killed(host, version):
    """Before anybody mends it: the state can be read, and one of the two versions answers. Returns the attempt."""
    state = host.file()
    assert state["serving"]["version"] in {version, other(version)}
    assert host.answering() in {version, other(version)}
    return state["attempt"]


def check_written_down(host, version, attempt):
    """The attempt that was killed has one line, where it had begun, and so has the one that completed it."""
    log = host.log()
    assert (log[-1]["version"], log[-1]["result"]) == (version, "succeeded")
    assert host.told()[-1] == ("succeeded", version)
    if attempt:
        [entry] = [entry for entry in log[:-1] if entry["started_at"] == attempt["entry"]["started_at"]]
        assert entry["version"] == version
        assert entry["result"] == ("succeeded" if attempt["committed"] else "cancelled")


async def timed(host, version):
    """Deploy it; the seconds that it took."""
    return (await deployed(host, version))[0]


async def deployed(host, version):
    """The same, and what it said."""
    began = time.monotonic()
    done = await quietly(host.deploy_sh, *host.words(version))
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - began, done.stdout
