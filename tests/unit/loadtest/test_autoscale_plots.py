"""The plots are drawn, and the same twice."""

from __future__ import annotations

from dataclasses import replace

from loadtest.autoscale import plots, scenarios


def test_each_plot_is_a_file_and_the_same_one_twice(tmp_path, monkeypatch):
    for name in ("SHOP", "CALLS"):
        phases = tuple(replace(phase, lasts_s=phase.lasts_s / 50) for phase in getattr(scenarios, name))
        monkeypatch.setattr(scenarios, name, phases)
    assert plots.main([str(tmp_path / "once")]) == 0
    assert plots.main([str(tmp_path / "again")]) == 0
    for name in plots.PLOTS:
        once = (tmp_path / "once" / f"{name}.svg").read_bytes()
        assert b"<svg" in once
        assert once == (tmp_path / "again" / f"{name}.svg").read_bytes()
