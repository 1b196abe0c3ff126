"""Children of the launcher: real processes, real signals, real orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving.demo import launch_child
from serving.demo.launch_process import Child, adopt_orphans, describe_exit

ROOT = Path(__file__).parents[4]

FAMILY = """
import os, signal, subprocess, sys, time
if sys.argv[1] == "stubborn": signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeper = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
print(sleeper.pid, flush=True)
time.sleep(60)
"""


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return value


@pytest.fixture
def start(tmp_path):
    children = []

    def go(code, *words):
        child = Child.start("engine", [sys.executable, "-c", code, *words], os.environ, tmp_path / "engine.log")
        children.append(child)
        return child

    yield go
    for child in children:
        child.stop(0)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def first_line(child):
    return until(lambda: child.log.read_text().partition("\n")[0])


def test_a_child_that_ends_is_told_in_words(start):
    child = start("import time; time.sleep(0.2); raise SystemExit(3)")
    assert child.fault is None
    assert until(lambda: child.fault) == "the engine ended with exit code 3"


def test_a_child_that_is_killed_is_told_by_the_signal(start):
    child = start("print('up', flush=True); import time; time.sleep(60)")
    first_line(child)
    child.process.kill()
    assert until(lambda: child.fault) == "the engine was killed by SIGKILL"


def test_a_signal_without_a_name_has_its_number():
    assert describe_exit(-99) == "was killed by signal 99"


def test_stopping_ends_the_grandchildren_too(start):
    child = start(FAMILY, "polite")
    sleeper = int(first_line(child))
    assert child.stop(10) is True
    until(lambda: gone(sleeper))


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(start):
    child = start(FAMILY, "stubborn")
    first_line(child)
    assert child.stop(0.2) is False
    assert child.fault == "the engine was killed by SIGKILL"


def test_stopping_twice_is_harmless(start):
    child = start("pass")
    until(lambda: child.fault)
    assert child.stop(1) is True
    assert child.stop(1) is True


def test_the_tail_is_the_end_of_the_log(start):
    child = start("print(*range(100), sep='\\n', flush=True)")
    until(lambda: child.fault)
    assert child.tail(2) == "98\n99"


def test_memory_counts_descendants(start):
    child = start(FAMILY, "polite")
    first_line(child)
    alone = psutil.Process(child.process.pid).memory_info().rss
    assert child.rss_bytes() > alone
    child.stop(10)
    assert child.rss_bytes() == 0


def test_a_descendant_that_ends_while_it_is_counted_is_left_out(start, monkeypatch):
    child = start(FAMILY, "polite")
    first_line(child)
    sleeper = psutil.Process(child.process.pid).children()[0]
    known = [sleeper]
    sleeper.kill()
    until(lambda: not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE)
    child.stop(10)
    until(lambda: not psutil.pid_exists(sleeper.pid))
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: known)
    own = Child("x", child.log, type("Self", (), {"pid": os.getpid()})())
    assert own.rss_bytes() > 0


def test_orphans_come_to_the_launcher_which_reaps_them(tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from serving.demo.launch_process import Child, adopt_orphans
adopt_orphans()
child = Child.start("engine", [sys.executable, "-c", {FAMILY!r}, "polite"], os.environ, Path({str(tmp_path)!r}) / "log")
import time
while not child.log.read_text(): time.sleep(0.02)
child.process.kill()
child.process.wait()
child.stop(1)
try:
    os.kill(int(child.log.read_text()), 0)
except ProcessLookupError:
    print("nothing left")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False, cwd=ROOT
    )
    assert done.stdout == "nothing left\n", done.stderr


def test_children_end_when_the_launcher_is_killed(tmp_path):
    code = f"""
import os, sys, time
from pathlib import Path
from serving.demo.launch_process import Child
child = Child.start("engine", [sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)"], os.environ,
                    Path({str(tmp_path)!r}) / "log")
print(child.process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as launcher:
        pid = int(launcher.stdout.readline())
        until((tmp_path / "log").read_text)
        launcher.kill()
    until(lambda: gone(pid))


def test_a_child_whose_launcher_is_gone_already_does_not_start():
    argv = [sys.executable, "-m", "serving.demo.launch_child", "1", "/bin/echo", "started"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "gone already" in done.stderr
    assert "started" not in done.stdout


def test_a_refused_property_is_an_error():
    with pytest.raises(OSError, match="Invalid argument"):
        launch_child.prctl(-1, 0)


def test_adopting_orphans_can_be_asked_for():
    adopt_orphans()
    launch_child.prctl(launch_child.PR_SET_CHILD_SUBREAPER, 0)
    assert signal.getsignal(signal.SIGCHLD) in {signal.SIG_DFL, None}
