import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from serving.weights import lock
from serving.weights.errors import Busy


def test_the_second_waits_is_told_once_and_then_holds(tmp_path):
    path, said, order = tmp_path / ".lock", [], []

    def second():
        with lock.exclusive(path, said.append, poll_s=0.005):
            order.append("second")

    with lock.exclusive(path, said.append):
        waiter = threading.Thread(target=second)
        waiter.start()
        while not said:
            time.sleep(0.005)
        time.sleep(0.03)
        order.append("first")
    waiter.join(10)
    assert order == ["first", "second"]
    assert len(said) == 1
    assert f"process {os.getpid()} is fetching" in said[0]


def test_a_long_wait_is_told_again(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "REMIND_S", 0.01)
    said = []
    with (
        lock.exclusive(tmp_path / ".lock", said.append),
        pytest.raises(Busy, match="wait longer"),
        lock.exclusive(tmp_path / ".lock", said.append, longest_wait_s=0.2, poll_s=0.005),
    ):
        pass
    assert len(said) > 1


def test_a_holder_that_is_killed_frees_it_though_the_file_stays(tmp_path):
    path = tmp_path / ".lock"
    program = f"import fcntl, time; f = open({str(path)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
    with lock.exclusive(path, pytest.fail):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_holder_without_a_name_is_a_question_mark(tmp_path):
    said = []
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy), lock.exclusive(tmp_path / ".lock", said.append, longest_wait_s=0):
            pass
