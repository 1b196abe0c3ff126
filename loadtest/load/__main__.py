"""Runs a load test, or a ramp twice, or compares: `python -m loadtest.load run SCENARIO`, `… twice`, `… compare A B`.

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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.images.stack import free_port
from loadtest.load import answers, demo, page, results, scenario, settings, twice
from serving.demo.launch_plan import Ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MISUSED = 2
MASTER_PORT = 5557
"""Locust's own."""
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
ROOT = Path(__file__).parents[2]
RUNS = Path(".load")


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
    _add_options(run)
    twice = commands.add_parser("twice", help="find the capacity twice; fails where the two are too far apart")
    twice.set_defaults(command=_twice)
    twice.add_argument("scenario", nargs="?", default="ramp", help="with a ramp (default: ramp)")
    twice.add_argument("--apart", type=_positive, default=0.1, help="how far apart they may be, of the smaller one")
    _add_options(twice)
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


def _add_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--url", help="of the service, without /v1; without it the demo is tested, and started if need be")
    run.add_argument("--model", default="", help="the service's first model if not given")
    run.add_argument("--answers", choices=answers.WAYS, help="how to check answers; by the model's name if not given")
    run.add_argument("--metrics-url", help="the gateway's /metrics, to watch its memory")
    run.add_argument("--per-s", type=_positive, help="mean arrival rate instead of the scenario's (a ramp's first)")
    run.add_argument("--lasts-s", type=_positive, help="duration instead of the scenario's")
    run.add_argument(
        "--capacity-of", metavar="FOLDER", help="a ramp's folder, or `latest`: the rate is --load of what it found"
    )
    run.add_argument("--load", type=_positive, default=0.8, metavar="SHARE", help="of that capacity (default 0.8)")
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
    ports = Ports()
    run.add_argument(
        "--port", type=int, default=ports.gateway, help="of the demo; so too --metrics-port, --engine-port"
    )
    run.add_argument("--metrics-port", type=int, default=ports.metrics, help=argparse.SUPPRESS)
    run.add_argument("--engine-port", type=int, default=ports.engine, help=argparse.SUPPRESS)


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _run(arguments: argparse.Namespace) -> int:
    per_s = _per_s(arguments)
    scenario.load(arguments.scenario, scenario.Changes(per_s, arguments.lasts_s))  # before anything starts
    out = arguments.out or _folder(arguments.scenario)
    with _service(arguments, out) as service:
        return _run_at(service, arguments, per_s, out)


def _twice(arguments: argparse.Namespace) -> int:
    """Run a ramp twice against one service; see `twice.judge`."""
    if scenario.load(arguments.scenario).ramp is None:
        raise scenario.ScenarioError(f"{arguments.scenario} has no ramp: only a ramp finds a capacity")
    out = arguments.out or _folder(arguments.scenario)
    folders = [out / "first", out / "second"]
    with _service(arguments, out) as service:
        codes = []
        for folder in folders:
            codes.append(_run_at(service, arguments, _per_s(arguments), folder))
            if codes[-1] == MISUSED or arguments.print:
                return codes[-1]
    verdict = twice.judge(*(results.read(folder) for folder in folders), apart=arguments.apart)
    (folders[1] / page.COMPARISON).write_text(page.comparison(*folders), encoding="utf-8")
    print(f"{verdict}\n{folders[1] / page.COMPARISON}")
    return max(*codes, 0 if verdict.met else 1)


def _per_s(arguments: argparse.Namespace) -> float | None:
    if not arguments.capacity_of:
        return arguments.per_s  # type: ignore[no-any-return]  # argparse's
    if arguments.per_s:
        raise scenario.ScenarioError("give either --per-s or --capacity-of")
    folder = latest(RUNS) if arguments.capacity_of == "latest" else Path(arguments.capacity_of)
    capacity = results.read(folder)["capacity_per_s"]
    if not capacity:
        raise results.NoRunError(f"{folder} found no capacity: give the folder of a ramp that met its objectives")
    rate: float = capacity * arguments.load
    print(f"{rate:.3g} requests/s: {arguments.load:.0%} of the capacity that {folder} found", flush=True)
    return rate


def latest(runs: Path) -> Path:
    """Find the folder of the ramp that ended last. Raises results.NoRunError."""
    ended = [path for path in runs.glob(f"**/{results.SUMMARY}") if results.read(path.parent)["capacity_per_s"]]
    if not ended:
        raise results.NoRunError(f"{runs} holds no ramp that found a capacity: make load SCENARIO=ramp")
    return max(ended, key=lambda path: path.stat().st_mtime).parent


def _folder(name: str) -> Path:
    return RUNS / f"{Path(name).stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


@dataclass(frozen=True)
class Service:
    """What is tested, and where its memory can be seen."""

    url: str
    metrics_url: str
    key: str
    engine_port: int = 0


@contextlib.contextmanager
def _service(arguments: argparse.Namespace, out: Path) -> Iterator[Service]:
    if arguments.url:
        yield Service(arguments.url, arguments.metrics_url or "", os.environ.get(settings.KEY, ""))
        return
    ports = Ports(arguments.port, arguments.metrics_port, arguments.engine_port)
    with demo.running(out, ports) as (url, metrics_url, key):
        yield Service(url, metrics_url, key, ports.engine)


def _run_at(service: Service, arguments: argparse.Namespace, per_s: float | None, out: Path) -> int:
    run = settings.Run(
        scenario=arguments.scenario,
        url=_base(service.url),
        folder=str(out),
        model=arguments.model,
        answers=arguments.answers,
        metrics_url=service.metrics_url,
        engine_port=service.engine_port,
        per_s=per_s,
        lasts_s=arguments.lasts_s,
        at_least_per_s=arguments.at_least_per_s,
    )
    command = locust_command(run, arguments.workers, arguments.web, arguments.expect_workers, arguments.master_port)
    if arguments.print:
        print(f"{settings.RUN}='{settings.to_environ(run, '')[settings.RUN]}'\n{' '.join(command)}")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    code = _locust(command, {**os.environ, **settings.to_environ(run, service.key)})
    if not (out / results.SUMMARY).exists():
        return MISUSED
    (out / results.REPORT).write_text(page.report(out), encoding="utf-8")
    summary = results.read(out)
    for each in summary["objectives"]:
        value = "–" if each["value"] is None else f"{each['value']:.4g}"
        print(f"  {'ok  ' if each['met'] else 'MISS'} {each['of']}: {value} (at most {each['most']:g})")
    for name, found in summary["memory"].items():
        slope = "too few looks for a slope" if found["mib_per_h"] is None else f"{found['mib_per_h']:+.1f} MiB an hour"
        print(f"  memory of {name}: {found['first_mib']:g} to {found['last_mib']:g} MiB, {slope}")
    print(f"{'objectives met' if summary['met'] else 'objectives missed'}: {out / results.REPORT}", flush=True)
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
