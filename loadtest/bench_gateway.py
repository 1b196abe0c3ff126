"""`make bench-gateway`: this gateway with all features on beside its peers, in front of one simulated engine.

    python -m loadtest.bench_gateway [--install litellm] [--peer NAME=COMMAND] [--rounds 3] [--seconds 3] [--write]

nginx shows the limit, LiteLLM, smg and vllm-router are compared when `--install` has installed them, any other gateway
when its command is given. Each is started afresh in each round, pinned to the first core; load generator and engine
share the last one. Rounds go through the gateways in turns, every second one backwards, so that what else the machine
does hits all of them. CPU is user and system time of the gateway's processes. Exit code 1 when a reply was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.gateway_bench import processes, shares
from loadtest.gateway_bench.processes import BenchError
from loadtest.gateway_bench.tables import figures_table, medians, per_unit, report, write
from loadtest.gateway_bench.targets import KEY, PACKAGES, ROOT, Ports, commanded, install, nginx, ours, packaged
from loadtest.gateway_bench.workloads import WORKLOADS, Workload, bodies_of, body_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.gateway_bench.targets import Target

    Found = dict[str, dict[str, float | str]]

DOCUMENT = ROOT / "docs" / "performance.md"
CACHE = ROOT / ".cache" / "bench-gateway"
WARM_S = 1.0
ENOUGH_CORES = 3
"""For two workers with a core each, and one for the load."""
SHARE = 0.4
"""Of a core for each worker, where there are fewer: two fit on one."""


class Bench:
    """The engine, the load generator, and the ports that both use."""

    def __init__(self, folder: Path, ports: Ports, seconds: float) -> None:
        """Compile, and write the requests to `folder`. Raises BenchError."""
        self._folder = folder
        self._ports = ports
        self._seconds = seconds
        cores = sorted(os.sched_getaffinity(0))
        self._gateway_cores, self._load_core = cores[:-1] or cores, cores[-1]
        CACHE.mkdir(parents=True, exist_ok=True)
        self._engine = processes.build("engine", CACHE)
        self._load = processes.build("load", CACHE)
        self._bodies: dict[str, list[str]] = {}
        for workload in WORKLOADS:
            paths = [folder / f"{workload.name}-{number}.json" for number, _ in enumerate(bodies_of(workload))]
            for path, body in zip(paths, bodies_of(workload), strict=True):
                path.write_bytes(body)
            self._bodies[workload.name] = [str(path) for path in paths]

    def round(self, target: Target, workloads: Sequence[Workload], groups: Path | None = None) -> Found:
        """Start the target, ask it everything, stop it. Raises BenchError, with what went wrong in its log.

        With control `groups` (see shares), each of its workers gets SHARE of a core, all of them on the first one.
        """
        for port in (self._ports.engine, self._ports.gateway):
            processes.check_free(port)
        engine = processes.start(
            [str(self._engine), str(self._ports.engine)], [self._load_core], {}, self._folder / "engine.log", ROOT
        )
        own = self._folder / target.name.replace(" ", "-")
        own.mkdir(exist_ok=True)
        log = own / "output.log"
        command = target.command(self._ports, own)
        alone = target.workers == 1 or groups is not None
        cores = self._gateway_cores[:1] if alone else [*self._gateway_cores, self._load_core]
        gateway = processes.start(command.argv, cores, command.env, log, own)
        try:
            processes.wait_ready(self._ports.gateway, KEY, body_of(WORKLOADS[0]), gateway, log)
            found: Found = {"memory": {"idle_mib": processes.memory_mib(gateway.pid)}}
            with limits_of(gateway.pid, groups):
                self._measure(gateway.pid, WORKLOADS[1], WARM_S)
                for workload in workloads:
                    found[workload.name] = self._measure(gateway.pid, workload, self._seconds)
            found["memory"]["peak_mib"] = processes.peak_mib(gateway.pid)
        except BenchError as exc:
            raise BenchError(f"{target.name}: {exc}") from exc
        finally:
            processes.stop(gateway)
            processes.stop(engine)
        return found

    def _measure(self, pid: int, workload: Workload, seconds: float) -> dict[str, float | str]:
        argv = [self._load, self._ports.gateway, KEY, workload.clients, seconds, workload.distinct,
                int(workload.stream), workload.tokens, *self._bodies[workload.name]]  # fmt: skip
        before = processes.cpu_s(pid)
        found = processes.generate([str(word) for word in argv], self._load_core, seconds, self._folder)
        return per_unit(found, processes.cpu_s(pid) - before)


def limits_of(pid: int, groups: Path | None) -> contextlib.AbstractContextManager[None]:
    """A block in which each worker has its SHARE, or all it can get where there are no groups."""
    return contextlib.nullcontext() if groups is None else shares.limited(shares.workers_of(pid), SHARE, groups)


def machine() -> str:
    """What the figures were found on."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.partition(": ")[2] for line in info.splitlines() if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"


def wrong_replies(rounds: dict[str, list[Found]]) -> list[str]:
    """A line for each workload in which a reply was wrong or missing: its figures mean nothing."""
    return [
        f"{name}, {workload}: {of['failed']} replies were wrong or missing; the first: {of['first_failure']}"
        for name, records in rounds.items()
        for record in records
        for workload, of in record.items()
        if of.get("failed")
    ]


def targets_of(arguments: argparse.Namespace) -> list[Target]:
    """What is to be compared. Raises BenchError for what is not here."""
    for name in arguments.install:
        install(name, CACHE)
    found = [ours()]
    if not arguments.no_nginx:
        found.append(nginx(arguments.nginx))
    found += [packaged(name, CACHE) for name in PACKAGES if (CACHE / name / "bin" / name).exists()]
    return found + [commanded(text) for text in arguments.peer]


def compare(
    bench: Bench, targets: Sequence[Target], workloads: Sequence[Workload], rounds: int
) -> dict[str, list[Found]]:
    """So many rounds through all of them in turns."""
    found: dict[str, list[Found]] = {target.name: [] for target in targets}
    for number in range(rounds):
        for target in targets if number % 2 == 0 else targets[::-1]:
            asked = [w for w in workloads if target.is_ours or not w.ours_only]
            found[target.name].append(bench.round(target, asked))
            print(f"round {number + 1} of {rounds}: {target.name}", file=sys.stderr, flush=True)
    return found


def two_workers(bench: Bench) -> str:
    """How much two workers carry of what one does, as a line."""
    busy = [workload for workload in WORKLOADS if workload.name == "c32"]
    groups, how = None, ""
    if len(os.sched_getaffinity(0)) < ENOUGH_CORES:
        groups = shares.base()
        how = " (the second shares its core with load generator and engine)"
    if groups is not None:
        how = f", each with {SHARE:g} of a core (control groups), all on one; load generator and engine have another"
    rates: dict[int, list[float]] = {1: [], 2: []}
    for workers in (1, 2, 2, 1, 1, 2):  # In turns, as the machine's speed moves.
        rates[workers].append(float(bench.round(ours(workers), busy, groups)["c32"]["per_second"]))
    found = "; ".join(", ".join(f"{rate:,.0f}" for rate in rates[workers]) for workers in rates)
    ratio = statistics.median(rates[2]) / statistics.median(rates[1])
    return f"Two workers carry {ratio:.2f} times what one does{how}: {found} requests a second.\n"


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; the exit code. Raises BenchError."""
    named = arguments.only or [workload.name for workload in WORKLOADS]
    workloads = [workload for workload in WORKLOADS if workload.name in named]
    targets = targets_of(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as folder:
        bench = Bench(Path(folder), Ports(arguments.port, arguments.engine_port), arguments.seconds)
        rounds = compare(bench, targets, workloads, arguments.rounds)
        workers = two_workers(bench) if arguments.two_workers else ""
    if wrong := wrong_replies(rounds):
        print(figures_table(medians(rounds)), *wrong, sep="\n")
        return 1
    versions = {target.name: target.version for target in targets}
    text = report(rounds, versions, machine(), "make bench-gateway") + workers
    print(text)
    if arguments.write:
        write(DOCUMENT, text)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 when a reply was wrong, 2 when it cannot run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", nargs="+", default=[], choices=PACKAGES, help="install these peers first (pip)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="{port}, {engine}, {key}")
    parser.add_argument("--nginx", metavar="PROGRAM", help="which nginx, when it is not on the PATH")
    parser.add_argument("--no-nginx", action="store_true", help="compare without the limit")
    parser.add_argument("--only", nargs="+", choices=[workload.name for workload in WORKLOADS], help="workloads")
    parser.add_argument("--two-workers", action="store_true", help="also two workers against one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each workload")
    parser.add_argument("--port", type=int, default=Ports().gateway, help="of the gateway; the next one is for metrics")
    parser.add_argument("--engine-port", type=int, default=Ports().engine)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT}")
    try:
        return run(parser.parse_args(argv))
    except BenchError as exc:
        print(exc, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
