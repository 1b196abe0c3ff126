"""`python -m serving.canary --base-url https://…/v1 --set qwen3-vl-8b`: the check that every deployment ends with."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from serving import arguments
from serving.canary import ask, golden, series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serving.canary.golden import Golden

EX_BAD, EX_UNKNOWN = 1, 3
MIN_WINDOW_S = 60.0
"""PromQL's rate needs two scrapes in the window, which are usually 15 or 30 s apart."""

HELP = """\
Asks the questions of a golden set about its pictures, through the address that clients use, and compares the answers.
With --prometheus also the share of 5xx and the P99 since it began with those of the release before.
The API key is taken from CANARY_API_KEY.
"""
EPILOG = """\
exit codes:
  0    good: enough answers are right, none took too long, errors and P99 are not worse
  1    bad: the report says in what; an address that does not answer is bad, too
  2    the command line is wrong
  3    not known: the golden set or Prometheus cannot be read

example:
  python -m serving.canary --base-url https://vision.example.com/v1 --set qwen3-vl-8b --soak-s 120 \\
    --prometheus http://prometheus:9090 --selector 'namespace="production"' --before-at 1795334400 --report canary.json
"""


@dataclass(frozen=True)
class Outcome:
    """One question of one round."""

    case: str
    seconds: float
    answer: str
    fault: str | None
    """None when the answer is right and came in time."""


@dataclass
class Report:
    """What was found; --report writes it as JSON."""

    golden: str
    base_url: str
    model: str
    outcomes: list[Outcome] = field(default_factory=list)
    now: series.Sample | None = None
    before: series.Sample | None = None
    reasons: list[str] = field(default_factory=list)
    """Why it is bad; empty when it is good."""

    @property
    def share_right(self) -> float:
        """Of all answers, from 0 to 1."""
        return sum(outcome.fault is None for outcome in self.outcomes) / max(1, len(self.outcomes))


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog="python -m serving.canary",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--base-url", required=True, help="public address, with /v1")
    top.add_argument("--set", required=True, metavar="NAME", help=f"{', '.join(golden.names())}, or a .toml file")
    top.add_argument("--model", help="served name (default: the set's)")
    top.add_argument("--timeout-s", type=arguments.seconds, default=60.0, help="for an answer (default: %(default)s)")
    top.add_argument(
        "--max-answer-s", type=arguments.seconds, default=30.0, help="slower is bad (default: %(default)s)"
    )
    top.add_argument(
        "--soak-s", type=arguments.seconds, default=0.0, help="ask in rounds this long (default: one round)"
    )
    top.add_argument("--prometheus", metavar="URL", help="compare error rate and P99")
    top.add_argument("--selector", default="", help="label matchers of the gateway's series, comma-separated")
    top.add_argument("--before-at", type=arguments.seconds, metavar="UNIX", help="when the release before ended")
    top.add_argument("--before-s", type=arguments.seconds, default=1800.0, help="its window (default: %(default)s)")
    top.add_argument("--report", type=Path, metavar="FILE", help="write what was found as JSON")
    return top


def look(
    asked: argparse.Namespace, found: Golden, target: ask.Target, report: Report, clock: Callable[[], float]
) -> None:
    """Ask the set, again and again until the soak is over."""
    until = clock() + asked.soak_s
    while True:
        for case in found.cases:
            report.outcomes.append(_outcome(case, target, asked.max_answer_s))
        if clock() >= until:
            break
    if report.share_right < found.least_right:
        right = sum(outcome.fault is None for outcome in report.outcomes)
        report.reasons.append(f"{right} of {len(report.outcomes)} answers are right, {found.least_right:.0%} must be")


def _outcome(case: golden.Case, target: ask.Target, max_answer_s: float) -> Outcome:
    began = time.monotonic()
    try:
        answer, took_s = ask.put(case, target)
    except ask.NoAnswer as exc:
        return Outcome(case.name, round(time.monotonic() - began, 3), "", str(exc))
    fault = case.expected.fault(answer)
    if fault is None and took_s > max_answer_s:
        fault = f"right, after {took_s:.1f} s"
    return Outcome(case.name, round(took_s, 3), answer, fault)


def compare(asked: argparse.Namespace, began: float, report: Report, now: float) -> None:
    """Read both windows and judge. Raises NoSeries."""
    window_s = max(MIN_WINDOW_S, now - began)
    report.now = series.read(asked.prometheus, asked.selector, window_s, now)
    if asked.before_at is not None:
        report.before = series.read(asked.prometheus, asked.selector, asked.before_s, asked.before_at)
    report.reasons += series.worse(report.now, report.before)


def main(argv: Sequence[str] | None = None, clock: Callable[[], float] = time.time) -> int:
    """Ask, compare, report; return the exit code."""
    asked = parser().parse_args(argv)
    began, code = clock(), 0
    try:
        found = golden.load(asked.set)
    except golden.GoldenError as exc:
        print(f"canary: {exc}", file=sys.stderr)
        return EX_UNKNOWN
    target = ask.Target(asked.base_url, os.environ.get("CANARY_API_KEY"), asked.model or found.model, asked.timeout_s)
    report = Report(found.name, target.base_url, target.model)
    look(asked, found, target, report, clock)
    if asked.prometheus:
        try:
            compare(asked, began, report, clock())
        except series.NoSeries as exc:
            report.reasons.append(str(exc))
            code = EX_UNKNOWN
    if report.reasons:
        code = EX_BAD if report.share_right < found.least_right else code or EX_BAD
    if asked.report:
        asked.report.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False), encoding="utf-8")
    say(report)
    return code


def say(report: Report) -> None:
    """Print each fault once, and the verdict."""
    faults = {outcome.case: outcome for outcome in report.outcomes if outcome.fault}
    for name, outcome in faults.items():
        print(f"canary: {name}: {outcome.fault}" + (f" (answer: {outcome.answer[:120]!r})" if outcome.answer else ""))
    slowest_s = max(outcome.seconds for outcome in report.outcomes)
    print(
        f"canary: {report.share_right:.0%} of {len(report.outcomes)} answers right, the slowest after {slowest_s:.1f} s"
    )
    for reason in report.reasons:
        print(f"canary: BAD: {reason}")
    if not report.reasons:
        print("canary: good")


if __name__ == "__main__":
    sys.exit(main())
