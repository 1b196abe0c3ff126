"""`python -m gateway report`: a time range as a picture or a page, for people without Grafana."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.prometheus_api import Prometheus, PrometheusError
from gateway.report import PLOTS, curves, page, summary

if TYPE_CHECKING:
    import argparse

_SPAN = re.compile(r"(\d+)([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
POINTS = 240
"""On one curve."""
SCRAPES = 4
"""Rates over fewer scrapes would have holes."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`report`: the range, where to ask, what to write."""
    parser = commands.add_parser("report", help="draw a time range from Prometheus as PNG or HTML")
    parser.add_argument("--since", default="1h", help="how far back: 30m, 1h, 7d (default: %(default)s)")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9091", metavar="URL", help="default: %(default)s")
    parser.add_argument(
        "--scrape-interval",
        type=float,
        default=15.0,
        metavar="S",
        help="seconds between two scrapes of that Prometheus; rates are over four (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), help="a .html or .png file (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Exit code: 0, 1 when Prometheus does not answer, 2 for a wrong argument, 69 when matplotlib is not there."""
    match = _SPAN.fullmatch(args.since)
    if match is None or not int(match[1]) or args.out.suffix not in {".html", ".png"}:
        print("--since is like 30m, 1h or 7d, and --out ends in .html or .png", file=sys.stderr)
        return 2
    try:
        from gateway.report_plots import png  # noqa: PLC0415 - an extra
    except ImportError:
        print("The report needs matplotlib: pip install 'qwen3-vl-stack[report]'", file=sys.stderr)
        return 69
    since_s = float(int(match[1]) * _UNITS_S[match[2]])
    end_s = time.time()
    step_s = max(1.0, since_s / POINTS)
    rate_s = SCRAPES * max(args.scrape_interval, step_s)
    title = f"Qwen3-VL, {args.since} to {datetime.fromtimestamp(end_s, UTC):%Y-%m-%d %H:%M} UTC"
    try:
        prometheus = Prometheus(args.prometheus)
        rows = summary(lambda expr: prometheus.query(expr, end_s), since_s)
        drawn = [
            (plot, curves(plot, lambda expr: prometheus.query_range(expr, end_s - since_s, end_s, step_s), rate_s))
            for plot in PLOTS
        ]
    except PrometheusError as exc:
        print(exc, file=sys.stderr)
        return 1
    picture = png(title, drawn, end_s - since_s, end_s)
    if args.out.suffix == ".png":
        args.out.write_bytes(picture)
    else:
        args.out.write_text(page(title, rows, picture), encoding="utf-8")
    print(f"{args.out}: {len(PLOTS)} plots of {args.since}")
    return 0
