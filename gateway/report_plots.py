"""Curves to one PNG; the only module that needs matplotlib (the extra `report`)."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.report import Curve, Plot

COLUMNS = 2
WIDTH_IN, HEIGHT_IN, DPI = 14.0, 3.0, 80


def png(title: str, plots: Sequence[tuple[Plot, Sequence[Curve]]], start_s: float, end_s: float) -> bytes:
    """All plots of the range (seconds since the epoch) on one sheet, two in a row."""
    ends = datetime.fromtimestamp(start_s, UTC), datetime.fromtimestamp(end_s, UTC)
    rows = -(-len(plots) // COLUMNS)
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for number in range(rows * COLUMNS):
        axis = axes[number // COLUMNS][number % COLUMNS]
        if number >= len(plots):
            axis.set_axis_off()
            continue
        plot, curves = plots[number]
        axis.set_title(f"{plot.title} [{plot.unit}]" if plot.unit else plot.title, loc="left", fontsize=10)
        axis.grid(visible=True, alpha=0.3)
        for name, series in curves:
            times = [datetime.fromtimestamp(at_s, UTC) for at_s, _ in series.points]
            axis.plot(times, [value for _, value in series.points], label=name, linewidth=1.2)
        if plot.bad_above is not None:
            axis.axhline(plot.bad_above, color="tab:red", linestyle="--", linewidth=0.8)
        if curves:
            locator = AutoDateLocator()  # type: ignore[no-untyped-call]
            axis.xaxis.set_major_locator(locator)
            axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
            axis.set_xlim(*ends)
            axis.set_ylim(bottom=0)
            axis.legend(fontsize=7, ncols=3, frameon=False)
        else:
            axis.text(0.5, 0.5, "no data", ha="center", va="center", transform=axis.transAxes, color="gray")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
