from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from gateway import malloc

PROGRAM = """
import resource
from gateway.malloc import keep_large_blocks
{call}
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use(): [b"x" * (1 << 22) for _ in range(6)]
use(), use()
before = faults()
for _ in range(20): use()
print(faults() - before)
"""

ARENAS = """
import ctypes, threading
from gateway.malloc import keep_large_blocks
{call}
libc, all_there, counted = ctypes.CDLL(None), threading.Barrier(13), threading.Event()
libc.malloc.restype = ctypes.c_void_p
def work():
    libc.malloc(1000)
    all_there.wait()
    counted.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
all_there.wait()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
counted.set()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the knobs are glibc's")
def test_threads_share_their_memory():
    def arenas(call):
        run = subprocess.run([sys.executable, "-c", ARENAS.format(call=call)], capture_output=True, check=True)
        return run.stdout.count(b"<heap nr=")

    assert arenas("assert keep_large_blocks()") == malloc.ARENAS < arenas("")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the knobs are glibc's")
def test_large_blocks_are_used_again_without_the_kernel():
    def faults(call):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(call=call)], capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert faults("assert keep_large_blocks()") * 10 < faults("")


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert malloc.keep_large_blocks() is False
