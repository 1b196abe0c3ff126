"""`make bench-parts` measures real parts; its figures are nobody's business here."""

from __future__ import annotations

import tomllib

import pytest

from loadtest import bench_parts, scaling


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    for name, value in {"BATCHES": 1, "SCRIPTS": 100, "COMMANDS": 64, "RECORDS": 50, "WAITERS": 20}.items():
        monkeypatch.setattr(bench_parts, name, value)
    monkeypatch.setattr(bench_parts, "ENGINES", (4, 16))
    monkeypatch.setattr(bench_parts, "OUT", tmp_path / "parts.toml")


def test_every_part_that_scaling_reads_is_measured_and_written(capsys):
    assert bench_parts.main(["--write"]) == 0
    assert bench_parts.OUT.read_text() == capsys.readouterr().out
    inputs, _ = scaling.read(parts=bench_parts.OUT)
    found = tomllib.loads(bench_parts.OUT.read_text())
    assert inputs.redis_script_us == found["redis_script_us"] > 0
    assert inputs.audit_bytes == found["audit_bytes"] > 300
    assert inputs.queue_us == found["queue_us"] > 0


def test_without_redis_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(bench_parts.shutil, "which", lambda _: None)
    assert bench_parts.main([]) == 1
    assert "make system" in capsys.readouterr().err


def test_records_that_are_lost_give_no_figure(monkeypatch, capsys):
    monkeypatch.setattr(bench_parts, "RECORDS", 10_000)
    assert bench_parts.main([]) == 1
    assert "of 10000 audit records were not written" in capsys.readouterr().err
