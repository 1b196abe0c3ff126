"""Plots of one run or two, as SVG with its text as text; the only module that needs matplotlib."""

from __future__ import annotations

import io
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from loadtest.load import figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from loadtest.load.outcome import Outcome

WIDTH_IN, HEIGHT_IN = 9.0, 2.6
BINS = 60
STYLE: Any = {
    "svg.hashsalt": "load",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
}
NAMES = {"ttft_s": "first token", "e2e_s": "whole answer", "itl_s": "between tokens"}


def svg(figure: Figure) -> str:
    """Render without what an XML file begins with: it goes into a page."""
    drawn = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def _figure(columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.grid(visible=True, alpha=0.3)
    return figure, axes


def over_time(outcomes: Sequence[Outcome]) -> Figure:
    """Percentiles by planned arrival, and what came and was under way; steps stand one after the other."""
    begins: dict[int, float] = {}
    ends: dict[int, float] = defaultdict(float)
    for outcome in outcomes:
        ends[outcome.step] = max(ends[outcome.step], outcome.planned_s + outcome.e2e_s)
    at = 0.0
    for step in sorted(ends):
        begins[step] = at
        at += ends[step]
    width = max(at / BINS, 1e-9)
    figure, (latency, load) = _figure(2)
    groups: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[int((begins[outcome.step] + outcome.planned_s) / width)].append(outcome)
    bins = sorted(groups)
    times = [number * width for number in bins]
    for name, colour in (("e2e_s", "C0"), ("ttft_s", "C1")):
        values = [_sorted(groups[number], name) for number in bins]
        for rank, style in ((50, "-"), (95, ":")):
            shown = [figures.percentile(one, rank) for one in values]
            latency.plot(times, shown, style, color=colour, label=f"{NAMES[name]} P{rank}")
    latency.set_ylim(bottom=0)
    latency.set_xlabel("seconds")
    latency.set_title("latency from the planned arrival [s]", loc="left")
    latency.legend(frameon=False, fontsize=7)
    load.step(times, [len(groups[number]) / width for number in bins], where="post", label="arrivals/s")
    failed = [sum(bool(one.fault) for one in groups[number]) / width for number in bins]
    load.step(times, failed, where="post", color="C3", label="failed/s")
    load.plot(times, [_under_way(outcomes, begins, time) for time in times], color="C2", label="under way")
    load.set_ylim(bottom=0)
    load.set_xlabel("seconds")
    load.legend(frameon=False, fontsize=7)
    return figure


def _sorted(outcomes: Sequence[Outcome], name: str) -> list[float]:
    values = (getattr(one, name) for one in outcomes if not one.fault)
    return sorted(value for value in values if value is not None)


def _under_way(outcomes: Sequence[Outcome], begins: dict[int, float], at_s: float) -> int:
    return sum(0 <= at_s - begins[one.step] - one.planned_s < one.e2e_s for one in outcomes)


def distributions(runs: Sequence[tuple[str, Sequence[Outcome]]]) -> Figure:
    """Share of requests that were faster than so many seconds, of one run or several."""
    figure, axes = _figure(len(NAMES))
    for axis, (name, title) in zip(axes, NAMES.items(), strict=True):
        for label, outcomes in runs:
            if name == "itl_s":
                values = sorted(gap for one in outcomes for gap in one.gaps_s)
            else:
                values = _sorted(outcomes, name)
            if values:
                axis.step(values, [(rank + 1) / len(values) * 100 for rank in range(len(values))], label=label)
        axis.set_title(f"{title} [s]", loc="left")
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("% faster")
    if len(runs) > 1:
        axes[0].legend(frameon=False, fontsize=7)
    return figure


def ramp(steps: Sequence[dict[str, Any]], capacity_per_s: float) -> Figure:
    """What each step of the search found; short ones, which decide nothing, are hollow."""
    figure, (axis,) = _figure()
    for met, colour, label in ((True, "C2", "met"), (False, "C3", "missed")):
        for kind, fill in (("level", "full"), ("feeling", "none")):
            chosen = [step for step in steps if step["met"] == met and step["kind"] == kind]
            seen = [
                (step["per_s"], step["figures"]["ttft_s"]["p95"], step["figures"]["e2e_s"]["p95"]) for step in chosen
            ]
            for column, marker in ((1, "o"), (2, "s")):
                points = [(one[0], one[column]) for one in seen if one[column] is not None]
                named = f"{('first token', 'whole answer')[column - 1]}, {label}" if kind == "level" else None
                axis.plot(
                    [x for x, _ in points], [y for _, y in points], marker, color=colour, fillstyle=fill, label=named
                )
    axis.axvline(capacity_per_s, linestyle="--", color="0.5", label=f"capacity {capacity_per_s:.3g}/s")
    axis.set_xlabel("requests/s")
    axis.set_title("P95 [s]; hollow: short steps", loc="left")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=7)
    return figure


def memory(series: dict[str, Sequence[Sequence[float]]]) -> Figure:
    """Memory over the run; each series has a panel of its own, from 0, so that growth is not made large."""
    figure, axes = _figure(len(series))
    for axis, (name, samples) in zip(axes, series.items(), strict=True):
        axis.plot([at_s for at_s, _ in samples], [value / figures.MIB for _, value in samples])
        axis.set_xlabel("seconds")
        axis.set_title(f"{name} [MiB]", loc="left")
        axis.set_ylim(bottom=0)
    return figure
