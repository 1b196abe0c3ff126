"""Runs a load test or compares two: `python -m loadtest.load run SCENARIO`, `… compare BEFORE AFTER`, `… list`.

Exit codes: 0 the objectives are met, 1 they are not, 2 nothing was tested (wrong option, no service, a lost generator).
The key comes from the environment (LOAD_KEY), so that it is in no list of processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.images.stack import free_port
from loadtest.load import answers, demo, page, results, scenario, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

MISUSED = 2
MASTER_PORT = 5557
"""Locust's own."""
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; see the module's exit codes."""
    arguments = _arguments(argv)
    try:
        code: int = arguments.command(arguments)
    except (scenario.ScenarioError, results.NoRunError, demo.DemoError) as exc:
        print(exc, file=sys.stderr)
        return MISUSED
    return code


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.load", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="test a service")
    run.set_defaults(command=_run)
    run.add_argument("scenario", help="a name that `list` shows, or a .toml file")
    run.add_argument("--url", help="of the service, without /v1; without it the demo is tested, and started if need be")
    run.add_argument("--model", default="", help="the service's first model if not given")
    run.add_argument("--answers", choices=answers.WAYS, help="how to check answers; by the model's name if not given")
    run.add_argument("--metrics-url", help="the gateway's /metrics, to watch its memory")
    run.add_argument("--per-s", type=_positive, help="mean arrival rate instead of the scenario's (a ramp's first)")
    run.add_argument("--lasts-s", type=_positive, help="duration instead of the scenario's")
    run.add_argument("--at-least-per-s", type=_positive, default=0.0, help="a ramp that finds less has missed")
    run.add_argument("--workers", type=int, default=1, help="generator processes; one fills one core")
    run.add_argument(
        "--expect-workers", type=int, help="instead: be the master of so many on other machines (`worker`)"
    )
    run.add_argument("--master-port", type=int, default=MASTER_PORT, help="that those connect to")
    run.add_argument("--web", type=int, metavar="PORT", help="Locust's web page on this port; Ctrl-C ends the run")
    run.add_argument("--out", type=Path, help="folder of the results")
    run.add_argument(
        "--print", action="store_true", help="print the variables and the command instead, for more machines"
    )
    worker = commands.add_parser("worker", help="generate for a master on another machine")
    worker.set_defaults(command=_worker)
    worker.add_argument("--master-host", required=True)
    worker.add_argument("--master-port", type=int, default=MASTER_PORT)
    worker.add_argument("--url", required=True, help="of the service, as the master has it")
    compare = commands.add_parser("compare", help="compare two runs")
    compare.set_defaults(command=_compare)
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    listed = commands.add_parser("list", help="list the scenarios")
    listed.set_defaults(command=_list)
    return parser.parse_args(argv)


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _run(arguments: argparse.Namespace) -> int:
    scenario.load(arguments.scenario, scenario.Changes(arguments.per_s, arguments.lasts_s))  # before anything starts
    name = Path(arguments.scenario).stem
    out = arguments.out or Path(".load") / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with contextlib.ExitStack() as held:
        url, metrics_url, key = arguments.url, arguments.metrics_url or "", os.environ.get(settings.KEY, "")
        if not url:
            url, metrics_url, key = held.enter_context(demo.running(out))
        run = settings.Run(
            scenario=arguments.scenario,
            url=_base(url),
            folder=str(out),
            model=arguments.model,
            answers=arguments.answers,
            metrics_url=metrics_url,
            per_s=arguments.per_s,
            lasts_s=arguments.lasts_s,
            at_least_per_s=arguments.at_least_per_s,
        )
        command = locust_command(run, arguments.workers, arguments.web, arguments.expect_workers, arguments.master_port)
        if arguments.print:
            print(f"{settings.RUN}='{settings.to_environ(run, '')[settings.RUN]}'\n{' '.join(command)}")
            return 0
        out.mkdir(parents=True, exist_ok=True)
        code = _locust(command, {**os.environ, **settings.to_environ(run, key)})
    if not (out / results.SUMMARY).exists():
        return MISUSED
    (out / results.REPORT).write_text(page.report(out), encoding="utf-8")
    summary = results.read(out)
    for each in summary["objectives"]:
        value = "–" if each["value"] is None else f"{each['value']:.4g}"
        print(f"  {'ok  ' if each['met'] else 'MISS'} {each['of']}: {value} (at most {each['most']:g})")
    print(f"{'objectives met' if summary['met'] else 'objectives missed'}: {out / results.REPORT}")
    return code


def locust_command(
    run: settings.Run, workers: int, web_port: int | None, expected: int | None = None, master_port: int = MASTER_PORT
) -> list[str]:
    """Make Locust's command: users are generators, one for each worker."""
    users = str(expected or workers)
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", run.url]
    command += ["--users", users, "--spawn-rate", users, "--csv", str(run.out / "locust")]
    command += ["--exit-code-on-error", "0"]
    command += ["--headless", "--only-summary"] if web_port is None else ["--autostart", "--web-port", str(web_port)]
    if expected:
        return [*command, "--master", "--expect-workers", users, "--master-bind-port", str(master_port)]
    if workers > 1:
        port = str(free_port())  # of this run alone: two may go on at once
        command += ["--processes", str(workers), "--master-port", port, "--master-bind-port", port]
    return command


def _worker(arguments: argparse.Namespace) -> int:
    # The scenario comes from the master, with the first order.
    run = settings.Run(scenario="", url=_base(arguments.url), folder="")
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker"]
    command += ["--master-host", arguments.master_host, "--master-port", str(arguments.master_port)]
    return _locust(command, {**os.environ, **settings.to_environ(run, os.environ.get(settings.KEY, ""))})


def _base(url: str) -> str:
    """Take what the SDK calls base_url, or the service's own."""
    return url.rstrip("/").removesuffix("/v1")


def _locust(command: list[str], environ: dict[str, str]) -> int:
    """Run Locust to its end; a signal to us is one to it."""
    python_path = os.pathsep.join(filter(None, [str(ROOT), environ.get("PYTHONPATH", "")]))
    child = subprocess.Popen(command, env={**environ, "PYTHONPATH": python_path})
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        while True:
            # Ctrl-C reaches Locust by itself, which then ends in order.
            with contextlib.suppress(KeyboardInterrupt):
                return child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare(arguments: argparse.Namespace) -> int:
    before, after = arguments.before, arguments.after
    for row in page.changes(results.read(before), results.read(after)):
        name, old, new, change = page.change_cells(row)
        print(f"{name:44} {old:>10} {new:>10} {change:>10}")
    path = after / page.COMPARISON
    path.write_text(page.comparison(before, after), encoding="utf-8")
    print(path)
    return 0


def _list(_: argparse.Namespace) -> int:
    for name in scenario.names():
        print(f"{name:24} {scenario.load(name).title}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
