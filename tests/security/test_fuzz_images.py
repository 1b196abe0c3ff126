"""The fuzz target itself: it runs, it decodes, and it notices when something breaks. `make fuzz-images` runs it for long."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time

import pytest

from gateway.images import inspect
from gateway.images.sniff import Format
from tests.security import fuzz_images
from tests.security.fuzz_images import BUDGET, HEADER, execute, fuzz, main, mutated, repaired, seeds


def test_five_seconds_of_it_find_nothing(tmp_path, capsys):
    assert main(["--minutes", str(5 / 60), "--seed", "1", "--keep", str(tmp_path)]) == 0
    report = capsys.readouterr().out
    assert "0 crashes" in report
    assert int(report.split()[0]) > 50, report
    assert list(tmp_path.iterdir()) == []


def test_the_seeds_are_whole_pictures_of_every_format():
    pictures = seeds()
    assert {inspect(data, max_pixels=BUDGET).format for data in pictures} == set(Format)
    assert [execute(data) for data in pictures] == [False] * len(pictures)
    assert sum(map(len, pictures)) < 300_000


def test_mutants_differ_and_many_still_decode():
    rng, pictures = random.Random(1), seeds()
    mutants = [mutated(rng.choice(pictures), pictures, rng) for _ in range(200)]
    assert len(set(mutants)) > 150
    assert 10 < sum(execute(data) for data in mutants) < 190


def test_a_checksum_is_made_right_again():
    png = next(data for data in seeds() if data.startswith(b"\x89PNG"))
    broken = png[:29] + bytes(4) + png[33:]
    assert repaired(broken) == png
    assert repaired(b"RIFF....WEBP") == b"RIFF" + struct.pack("<I", 4) + b"WEBP"


def dying(code):
    """A child that leaves an input behind and then does what `code` says."""

    def argv_for(path):
        leave = f"open({str(path)!r}, 'r+b').write({HEADER.pack(7, 3, 5) + b'input'!r})"
        return [sys.executable, "-c", f"import os, time; {leave}; {code}"]

    return argv_for


@pytest.mark.parametrize(
    ("code", "said"),
    [("os.abort()", "ended with -6"), ("raise SystemExit(1)", "ended with 1"), ("time.sleep(60)", "took more than")],
)
def test_a_death_a_foreign_exception_and_a_hang_are_crashes_and_the_input_is_kept(
    tmp_path, monkeypatch, capsys, code, said
):
    real = subprocess.Popen
    started = []

    def popen(argv, **options):
        started.append(argv)
        return real(dying(code)(argv[argv.index("--child") + 1]), **options)

    monkeypatch.setattr(fuzz_images.subprocess, "Popen", popen)
    monkeypatch.setattr(fuzz_images, "HANG_S", 0.5)
    began = time.monotonic()
    executions, refusals, crashes = fuzz(1.5, 1, tmp_path)
    assert time.monotonic() - began < 20
    assert crashes
    assert (executions, refusals) >= (7, 3)
    assert {crash.read_bytes() for crash in crashes} == {b"input"}
    assert said in capsys.readouterr().out
