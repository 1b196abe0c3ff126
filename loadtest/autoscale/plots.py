"""The plots of docs/autoscaling.md: `python -m loadtest.autoscale.plots docs/autoscaling`."""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from loadtest.autoscale import scenarios as s
from loadtest.autoscale.policy import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from loadtest.autoscale.workload import Phase

SEED = 1
COLD_STARTS_S = (30, 60, 90, 120, 180, 240, 300)
STYLE: Any = {
    "svg.hashsalt": "autoscaling",  # the same plot is the same file
    "svg.fonttype": "none",  # text stays text
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
}


def over_time() -> Figure:
    """Engines and queue during the campaign, for three signals."""
    policies = (
        ("gateway in flight", s.in_flight(), 32, "C0"),
        ("vLLM waiting alone", s.scaled_on(Signal.WAITING, s.WAITING_TARGET), 32, "C3"),
        ("vLLM waiting alone, 64 at an engine", s.scaled_on(Signal.WAITING, s.WAITING_TARGET), 64, "C1"),
        ("CPU 40 %", s.scaled_on(Signal.CPU, 0.4), 32, "C2"),
    )
    figure = Figure(figsize=(8, 6), layout="constrained")
    load, engines, queue = figure.subplots(3, 1, sharex=True, height_ratios=(1, 2, 2))
    _steps(load, s.SHOP)
    for name, policy, cap, colour in policies:
        outcome = s.run_case(s.Case(s.SHOP, replace(s.USUAL, max_in_flight=cap), policy), SEED)
        minutes = [sample.at_s / s.MINUTE_S for sample in outcome.samples]
        engines.step(minutes, [sample.ready for sample in outcome.samples], color=colour, where="post", label=name)
        queue.plot(minutes, [sample.queued for sample in outcome.samples], color=colour)
    load.set_ylabel("requests/s")
    engines.set_ylabel("engines ready")
    engines.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper center", ncols=len(policies), frameon=False, fontsize=8)
    queue.set_ylabel("held in the gateway")
    queue.set_xlabel("minutes")
    return figure


def _steps(axes: Axes, phases: Sequence[Phase]) -> None:
    ends = list(itertools.accumulate(phase.lasts_s / s.MINUTE_S for phase in phases))
    axes.stairs([phase.per_s for phase in phases], [0, *ends], fill=True, color="0.8")


def over_cold_starts() -> Figure:
    """What a cold start costs: waits from one engine up, refusals from zero."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    waits, lost = figure.subplots(1, 2)
    for least in (1, 2, 3):
        cases = [replace(s.USUAL, cold_start_s=cold) for cold in COLD_STARTS_S]
        found = [s.run_case(s.Case(s.SHOP, setup, s.in_flight(min_replicas=least), least), SEED) for setup in cases]
        shares = [outcome.within(s.PATIENCE_S) * 100 for outcome in found]
        waits.plot(COLD_STARTS_S, shares, marker="o", markersize=3, label=f"at least {least}")
    waits.set_ylabel("% begun within 5 s (campaign)")
    for deadline in (20, 60, 120, 240):
        cases = [replace(s.USUAL, cold_start_s=cold, deadline_s=deadline) for cold in COLD_STARTS_S]
        policy = s.in_flight(min_replicas=0)
        found = [s.run_case(s.Case(s.CALLS, setup, policy, 0), SEED) for setup in cases]
        shares = [outcome.refused_share * 100 for outcome in found]
        lost.plot(COLD_STARTS_S, shares, marker="o", markersize=3, label=f"deadline {deadline} s")
    lost.set_ylabel("% without an answer (from zero)")
    for axes in (waits, lost):
        axes.set_xlabel("cold start, seconds")
        axes.set_ylim(0, 102)
        axes.legend(frameon=False, fontsize=8)
    return figure


PLOTS = {"over-time": over_time, "cold-starts": over_cold_starts}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all plots into a folder."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.autoscale.plots", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        with mpl.rc_context(STYLE):
            draw().savefig(folder / f"{name}.svg", metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
