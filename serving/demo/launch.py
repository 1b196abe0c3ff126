"""`make demo`: real vLLM with the demo checkpoint, the gateway in front, three questions, then up until Ctrl-C.

Never a hang: each wait has a deadline and watches both children. Never an orphan: however the demo ends, both children
and all their descendants end with it, gateway first.

Exit codes: 0 all answers right (or, without --exit, stopped by the user), 1 a wrong answer with --exit, 69 engine or
gateway failed, 78 this machine cannot run the demo (each reason on a line), 128 + n stopped by signal n before the end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import psutil

from serving.demo import ask, launch_plan, launch_preflight
from serving.demo.launch_plan import HOST, Ports
from serving.demo.launch_process import Child, adopt_orphans
from serving.demo.launch_report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Ports", "main"]

EX_UNAVAILABLE, EX_CONFIG = 69, 78

READY_DEADLINE_S = 300.0
"""A cold start takes 25-40 s on two cores; a slow disk or a busy machine a few times that."""
ANSWER_DEADLINE_S = 60.0
GATEWAY_GRACE_S = 15.0
ENGINE_GRACE_S = 25.0
"""More than the profile's --shutdown-timeout, 10 s, and the end of its processes."""
POLL_S = 0.2
PROBE_TIMEOUT_S = 2.0
REFUSING_S = 3.0
"""An engine that refuses connections for so long after it was ready has closed its port."""


class DemoError(Exception):
    """The demo cannot go on; the message is one line, `log_tail` explains it."""

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.log_tail = log_tail


def probe(port: int, path: str) -> int | None:
    """Return the status of a GET on loopback: 0 when the connection is refused, None when no answer came in time."""
    connection = http.client.HTTPConnection(HOST, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except ConnectionError:
        return 0
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@dataclass
class Stop:
    """Turns SIGINT, SIGTERM and SIGHUP into a flag that every wait looks at."""

    event: threading.Event = field(default_factory=threading.Event)
    signal_number: int | None = None

    def install(self) -> None:
        """Take the signals over; a second Ctrl-C changes nothing, as stopping has deadlines of its own."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._set)

    def _set(self, number: int, _frame: object) -> None:
        self.signal_number = self.signal_number or number
        self.event.set()

    @property
    def exit_code(self) -> int:
        """What a program ends with that a signal stopped."""
        return 128 + (self.signal_number or 0)


class Stopped(Exception):
    """The user asked the demo to stop."""


@dataclass
class Watch:
    """Notices within seconds that a child is gone, or an engine that lost its core."""

    ports: Ports
    engine: Child
    gateway: Child
    stop: Stop
    probe_engine: Callable[[int, str], int | None] = probe
    clock: Callable[[], float] = time.monotonic
    refused_since: float | None = None
    ready: bool = False

    def tick(self, pause_s: float = POLL_S) -> None:
        """Wait a moment. Raises Stopped when asked to stop, DemoError when something died."""
        if self.stop.event.wait(pause_s):
            raise Stopped
        for child in (self.engine, self.gateway):
            if fault := child.fault:
                raise _gone(child, fault)
        if self.ready:
            self._probe()

    def _probe(self) -> None:
        status = self.probe_engine(self.ports.engine, "/health")
        if status == 503:  # noqa: PLR2004  # what vLLM's /health says once its core or a worker has died
            raise _gone(self.engine, "the engine lost its core process")
        if status != 0:
            self.refused_since = None
        elif self.refused_since is None:
            self.refused_since = self.clock()
        elif self.clock() - self.refused_since > REFUSING_S:
            raise _gone(self.engine, "the engine closed its port")


def _gone(child: Child, fault: str) -> DemoError:
    return DemoError(f"{fault}: see above and in {child.log}, then run `make demo` again", child.tail())


def wait_until_ready(watch: Watch, report: Report, deadline_s: float = READY_DEADLINE_S) -> None:
    """Return when the gateway says that an engine answers behind it; say how far the engine is meanwhile."""
    began, stage = report.elapsed_s, None
    with report.waiting("waiting for the engine"):
        while probe(watch.ports.gateway, "/readyz") != http.HTTPStatus.OK:
            watch.tick()
            now = launch_plan.engine_stage(watch.engine.log.read_text(errors="replace"))
            if now and now != stage:
                report.event(f"engine: {now}")
                stage = now
            if report.elapsed_s - began > deadline_s:
                raise DemoError(
                    f"not ready after {deadline_s:.0f} s; the logs: {watch.engine.log} and {watch.gateway.log}",
                    watch.engine.tail(),
                )
    watch.ready = True


def ask_all(watch: Watch, report: Report, drawn: list[ask.Drawn]) -> list[ask.Answered]:
    """Ask the questions while watching the children; show each answer when it is there."""
    results: list[ask.Answered] = []
    failures: list[Exception] = []
    # A daemon: the demo can end while the SDK still waits for a dead engine.
    worker = threading.Thread(target=_ask, args=(watch.ports, drawn, results, failures), daemon=True)
    worker.start()
    deadline, shown = time.monotonic() + ANSWER_DEADLINE_S * len(drawn), 0
    while shown < len(drawn):
        watch.tick(0.02)
        while shown < len(results):
            report.answered(shown + 1, results[shown])
            shown += 1
        if failures:
            watch.tick()  # a dead child is the better explanation
            raise DemoError(f"question {shown + 1} failed: {failures[0]}", watch.gateway.tail())
        if time.monotonic() > deadline:
            raise DemoError(f"no answer within {ANSWER_DEADLINE_S:.0f} s", watch.gateway.tail())
    return results


def _ask(ports: Ports, drawn: list[ask.Drawn], results: list[ask.Answered], failures: list[Exception]) -> None:
    with openai.OpenAI(
        base_url=f"http://{HOST}:{ports.gateway}/v1",
        api_key=launch_plan.DEMO_KEY,
        timeout=ANSWER_DEADLINE_S,
        max_retries=0,
        # Loopback needs no proxy, whatever the environment says.
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as client:
        try:
            for item in drawn:  # one by one: the main thread shows each as it comes
                answer = ask.put(client, launch_plan.model_name(), item)
                results.append(answer)
        except openai.OpenAIError as exc:
            failures.append(exc)


@contextlib.contextmanager
def started(ports: Ports, folder: Path, report: Report) -> Iterator[tuple[Child, Child]]:
    """Run engine and gateway; stop them in order, gateway first, and leave neither process nor key behind."""
    keys_file = folder / "keys.json"
    keys_file.touch(mode=0o600)
    keys_file.write_text(json.dumps(launch_plan.keys_document(datetime.now(UTC))))
    engine_key = secrets.token_hex()
    with contextlib.ExitStack() as stack:
        stack.callback(keys_file.unlink, missing_ok=True)
        engine = Child.start(
            "engine",
            launch_plan.engine_argv(ports),
            launch_plan.engine_env(os.environ, engine_key),
            folder / "engine.log",
        )
        stack.callback(_stop, engine, ENGINE_GRACE_S, report)
        report.event(f"engine: starting vLLM on port {ports.engine} (log: {engine.log})")
        gateway = Child.start(
            "gateway",
            launch_plan.gateway_argv(),
            launch_plan.gateway_env(os.environ, ports, keys_file, engine_key),
            folder / "gateway.log",
        )
        stack.callback(_stop, gateway, GATEWAY_GRACE_S, report)
        report.event(f"gateway: starting on port {ports.gateway}, metrics on {ports.metrics} (log: {gateway.log})")
        yield engine, gateway


def _stop(child: Child, grace_s: float, report: Report) -> None:
    died = child.fault is not None
    clean = child.stop(grace_s)
    if not died:
        report.event(f"{child.name}: stopped" if clean else f"{child.name}: killed, as it took over {grace_s:.0f} s")


def run(ports: Ports, folder: Path, report: Report, stop: Stop, *, stop_after_answers: bool, seed: int) -> int:
    """Do everything between the checks and the end. Raises DemoError, Stopped."""
    with started(ports, folder, report) as (engine, gateway):
        watch = Watch(ports, engine, gateway, stop)
        wait_until_ready(watch, report)
        report.event("ready: the gateway answers, with the engine behind it", style="bold green")
        drawn = ask.draw(seed, folder / "pictures")
        report.event(f"drew {len(drawn)} pictures (seed {seed})")
        answers = ask_all(watch, report, drawn)
        rss = {child.name: child.rss_bytes() for child in (engine, gateway)}
        report.sizes({**rss, "demo": psutil.Process().memory_info().rss})
        right = sum(answer.right for answer in answers)
        report.event(
            f"{right} of {len(answers)} answers are right", style="bold green" if right == len(answers) else "bold red"
        )
        if stop_after_answers:
            return 0 if right == len(answers) else 1
        picture = str(drawn[0].picture)
        report.plain(f"\nGo on with curl:\n\n{launch_plan.curl_line(ports, picture)}\n\nor with Python:\n")
        report.plain(launch_plan.python_snippet(ports, launch_plan.model_name(), picture))
        report.plain(f"\nMetrics: http://{HOST}:{ports.metrics}/metrics. Ctrl-C stops everything.\n")
        try:
            while True:
                watch.tick(pause_s=1.0)
        except Stopped:
            report.event("stopping")
            return 0


def main(ports: Ports, *, stop_after_answers: bool = False, seed: int | None = None, root: Path = Path(".demo")) -> int:
    """Check the machine, run the demo, and turn every end into an exit code and one clear line."""
    report = Report()
    if faults := launch_preflight.faults(ports):
        for fault in faults:
            report.fault(fault)
        return EX_CONFIG
    report.event("machine: ports are free, memory suffices, libraries are there")
    folder = root / str(ports.gateway)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stop = Stop()
    stop.install()
    adopt_orphans()
    try:
        seed = ask.fresh_seed() if seed is None else seed
        return run(ports, folder, report, stop, stop_after_answers=stop_after_answers, seed=seed)
    except Stopped:
        return stop.exit_code
    except DemoError as exc:
        report.fault(str(exc), exc.log_tail)
        return EX_UNAVAILABLE
