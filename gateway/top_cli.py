"""`python -m gateway top`: the live stack in a terminal, from the gateway's own `/metrics`; needs no Prometheus."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from gateway.top import Look, view

if TYPE_CHECKING:
    import argparse

    from gateway.top import View

TIMEOUT_S = 5.0
SHOWN_TENANTS = 8


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`top`: where to look, and how often."""
    parser = commands.add_parser("top", help="show rate, latency, cache, queue and engines of a running gateway")
    parser.add_argument(
        "--metrics", default="http://127.0.0.1:9090/metrics", metavar="URL", help="default: %(default)s"
    )
    parser.add_argument("--interval", type=float, default=2.0, metavar="S", help="seconds between two looks")
    parser.add_argument("--once", action="store_true", help="print one screen and end")


def run(args: argparse.Namespace) -> int:
    """Exit code: 0, or 1 when the metrics cannot be read."""
    console = Console()
    try:
        before = look(args.metrics)
        if args.once:
            time.sleep(args.interval)
            console.print(screen(view(before, look(args.metrics)), args.metrics))
            return 0
        with Live(console=console, screen=console.is_terminal) as live:
            while True:
                time.sleep(args.interval)
                now = look(args.metrics)
                live.update(screen(view(before, now), args.metrics))
                before = now
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as exc:
        print(
            f"{args.metrics} cannot be read ({exc}): is the gateway up, and GATEWAY_METRICS_PORT right?",
            file=sys.stderr,
        )
        return 1


def look(url: str) -> Look:
    """The metrics now; raises OSError or ValueError."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("no http(s) URL")
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - http(s), checked above
        return Look.of(response.read().decode(), time.monotonic())


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
