"""`python -m gateway top`: the live stack in a terminal, from the gateway's own `/metrics`; needs no Prometheus."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from gateway.top import Look

TIMEOUT_S = 5.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`top`: where to look, and how often."""
    parser = commands.add_parser("top", help="show rate, latency, cache, queue and engines of a running gateway")
    parser.add_argument(
        "--metrics", default="http://127.0.0.1:9090/metrics", metavar="URL", help="default: %(default)s"
    )
    parser.add_argument("--interval", type=float, default=2.0, metavar="S", help="seconds between two looks")
    parser.add_argument("--once", action="store_true", help="print one screen and end")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write one screen as a picture and end")


def run(args: argparse.Namespace) -> int:
    """Exit code: 0, or 1 when the metrics cannot be read."""
    # Here, as `serve` shares this command line: its workers need no rich, and must set up prometheus_client first.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from gateway.top import view  # noqa: PLC0415
    from gateway.top_screen import picture, screen  # noqa: PLC0415

    console = Console()
    try:
        before = look(args.metrics)
        if args.once or args.svg:
            time.sleep(args.interval)
            shown = screen(view(before, look(args.metrics)), args.metrics)
            if args.svg:
                args.svg.write_text(picture(shown), encoding="utf-8")
            else:
                console.print(shown)
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
    from gateway.top import Look  # noqa: PLC0415 - as in `run`

    if not url.startswith(("http://", "https://")):
        raise ValueError("no http(s) URL")
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - http(s), checked above
        return Look.of(response.read().decode(), time.monotonic())
