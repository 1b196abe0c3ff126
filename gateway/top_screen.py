"""One screen of `python -m gateway top`."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table

if TYPE_CHECKING:
    from gateway.top import View

SHOWN_TENANTS = 8
PICTURE_COLUMNS = 100
_FONTS = re.compile(r"@font-face \{.*?\n    \}\n", re.DOTALL)


def screen(shown: View, title: str) -> Group:
    """One screen."""
    figures = Table.grid(padding=(0, 2))
    figures.add_row("requests", f"{shown.requests:.1f}/s", "in flight", f"{shown.in_flight:.0f}")
    figures.add_row("kept", "-" if shown.hits is None else f"{shown.hits:.0%}", "waiting", waiting(shown))
    for name in ("input", "output"):
        figures.add_row(f"{name} tokens", f"{shown.tokens.get(name, 0):.0f}/s", "", "")
    for fault, value in shown.errors.items():
        figures.add_row(f"[red]{fault} errors[/red]", f"{value:.2f}/s", "", "")

    latency = table("", "P50", "P95", "P99")
    latency.add_row("first token", *(seconds(value) for value in shown.first_token_s))
    latency.add_row("whole answer", *(seconds(value) for value in shown.answer_s))

    steps = table("step", "mean")
    for step, value in shown.step_s.items():
        steps.add_row(step, seconds(value))

    engines = table("engine", "", "in flight", "failures")
    for engine in shown.engines:
        state = "[green]up[/green]" if engine.up else "[bold red]OUT[/bold red]"
        engines.add_row(engine.url, state, f"{engine.in_flight:.0f}", f"{engine.failures:.0f}")

    tenants = table("tenant", "requests/s")
    for tenant, value in [*shown.tenants.items()][:SHOWN_TENANTS]:
        tenants.add_row(tenant, f"{value:.1f}")
    return Group(
        Panel(figures, title=title, title_align="left"), engines, Columns([latency, steps, tenants], padding=(0, 4))
    )


def picture(shown: Group) -> str:
    """The screen as an SVG that fetches nothing: without the fonts that rich would have from a third party."""
    console = Console(file=io.StringIO(), record=True, width=PICTURE_COLUMNS, force_terminal=True)
    console.print(shown)
    return _FONTS.sub("", console.export_svg(title="python -m gateway top", unique_id="top"))


def waiting(shown: View) -> str:
    """How many wait, by class where any does."""
    classes = ", ".join(f"{name} {count:.0f}" for name, count in shown.waiting.items() if count)
    return f"{sum(shown.waiting.values()):.0f}" + (f" ({classes})" if classes else "")


def seconds(value: float | None) -> str:
    """A duration to be read at a glance."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def table(first: str, *others: str) -> Table:
    """A bare table, numbers to the right."""
    made = Table(box=None, header_style="bold")
    made.add_column(first)
    for other in others:
        made.add_column(other, justify="right")
    return made
