"""`make observe`: stack, Prometheus, traffic; then every query of every panel and rule, and four faults.

With `--write` (ARGS=--write) what was seen goes into docs/: its figures, the report and the terminal view as pictures.

Exit codes: 0 every query has data and every fault was seen; 1 not, each with its line; 69 the stack did not start.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from pathlib import Path

from gateway.__main__ import main as gateway
from helm.observability import faults, record, stack, traffic
from helm.observability.live import Outcome, judge
from helm.observability.queries import known_names, panel_queries, rule_queries, unknown_names
from serving.demo import ask, launch_plan

EX_UNAVAILABLE = 69
FOLDER = Path(".observe")
BEGAN_S = time.monotonic()
DATA_DEADLINE_S = 90.0
"""Rates need a few scrapes, quantiles traffic of every kind."""


def say(text: str) -> None:
    """Print a line at once, with the seconds since the start."""
    print(f"[{time.monotonic() - BEGAN_S:6.1f} s] {text}", flush=True)


async def until_alive(running: stack.Stack, model: str, picture: bytes) -> Outcome:
    """Send traffic until every query has data, or the deadline is over."""
    asked, known = [*panel_queries(), *rule_queries()], known_names()
    until = time.monotonic() + DATA_DEADLINE_S
    async with traffic.client_of(running) as client:
        while True:
            await traffic.one_round(client, running, model, picture)
            await asyncio.sleep(2 * stack.SCRAPE_S)
            outcome = judge(asked, known, running.prometheus.query)
            if not outcome.dead or time.monotonic() > until:
                return outcome


async def see_faults(running: stack.Stack, model: str) -> list[faults.Seen]:
    """Put each fault in and print what was seen."""
    seen = []
    async with traffic.client_of(running) as client:
        for fault in faults.Saboteur(running, client, model).faults():
            seen.append(await faults.put_in(running, fault))
            say(seen[-1].line())
    return seen


async def watched(running: stack.Stack, model: str, picture: bytes) -> None:
    """The terminal view, of a moment with traffic."""
    words = ["top", f"--metrics={running.metrics_url}", f"--svg={FOLDER / 'top.svg'}", "--interval=4"]
    view = asyncio.create_task(asyncio.to_thread(gateway, words))
    async with traffic.client_of(running) as client:
        while not view.done():
            await traffic.one_round(client, running, model, picture)
    await view


def main(argv: list[str] | None = None) -> int:
    """Do all of it."""
    parser = argparse.ArgumentParser(prog="python -m helm.observability.prove", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put what was seen into docs/ (needs chromium)")
    args = parser.parse_args(argv)
    if args.write and (missing := record.missing()):
        say(missing)
        return EX_UNAVAILABLE
    if faulty := unknown_names([*panel_queries(), *rule_queries()], known_names()):
        for line in faulty:
            say(line)
        return 1
    picture = ask.draw(7, FOLDER.parent / ".observe-pictures")[0].picture.read_bytes()
    model = launch_plan.model_name()
    try:
        with stack.started(FOLDER, picture, say) as running:
            began = time.monotonic()
            say("vLLM generates; sending traffic until every query has data")
            outcome = asyncio.run(until_alive(running, model, picture))
            say(f"{len(outcome.alive)} queries alive, {len(outcome.dead)} dead; putting faults in")
            for query, what in outcome.dead:
                say(f"no data: {query.where}: {what}")
            asyncio.run(watched(running, model, picture))
            seen = asyncio.run(see_faults(running, model))
            since_s = math.ceil(time.monotonic() - began)
            words = ["report", f"--since={since_s}s", "--scrape-interval=2", f"--prometheus={running.prometheus_url}"]
            for name in ("report.html", "report.png"):
                gateway([*words, f"--out={FOLDER / name}"])
    except stack.StackError as exc:
        say(str(exc))
        return EX_UNAVAILABLE
    say(record.summary(outcome, seen))
    failed = bool(outcome.dead) or not all(each.ok for each in seen)
    if args.write and not failed:
        record.write(outcome, seen, FOLDER)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
