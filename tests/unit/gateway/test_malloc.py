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
