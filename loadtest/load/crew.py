"""Locust's runner as a crew of generators: who is told what, and what comes back.

A master sends each of its workers its share of a step; a single process is its own only worker. Outcomes travel in
Locust's own messages, whole, because percentiles cannot be put together from percentiles.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gevent
import msgspec
from gevent.event import AsyncResult, Event
from gevent.queue import Queue
from locust.runners import MasterRunner, WorkerRunner

from loadtest.load import outcome, scenario
from loadtest.load.answers import Checker
from loadtest.load.conduct import CrewError
from loadtest.load.generator import Generator
from loadtest.load.plan import Planned
from loadtest.load.scenario import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from locust.env import Environment
    from locust.runners import Runner

    from loadtest.load.answers import Way
    from loadtest.load.outcome import Outcome
    from loadtest.load.settings import Run

DRAWING_DEADLINE_S = 600.0
GRACE_S = 30.0
FLUSH_S = 0.5
LOCAL = "local"


@dataclass
class Worker:
    """A process that generates: takes orders one after the other, for as long as its user of Locust lives."""

    environment: Environment
    run: Run
    key: str
    generator: Generator | None = None
    orders: Queue = field(default_factory=Queue)
    _kept: list[list[Any]] = field(default_factory=list)

    def listen(self) -> None:
        """Take orders from the master."""
        for kind in ("prepare", "play", "alone"):
            self._runner.register_message(kind, self._order)

    @property
    def _runner(self) -> Runner:
        runner = self.environment.runner
        if runner is None:
            raise CrewError("Locust has no runner yet")
        return runner

    def _order(self, environment: Environment, msg: Any) -> None:  # noqa: ANN401, ARG002 - Locust's call
        self.orders.put((msg.type, msg.data))

    def work(self) -> None:
        """Carry one order out; a failure is told and ends nothing but the order."""
        kind, data = self.orders.get()
        try:
            getattr(self, kind)(data)
        except Exception as exc:
            self._runner.send_message("failed", {"why": f"{type(exc).__name__}: {exc}"})
            raise

    def prepare(self, data: dict[str, Any]) -> None:
        """Draw the pictures."""
        checker = Checker(data["answers"])
        asked = scenario.parse(data["scenario"])
        self.generator = Generator(
            self.run.url, self.key, data["model"], asked, checker, self.run.timeout_s, data["nonce"]
        )
        self._runner.send_message("done", {})

    def play(self, data: dict[str, Any]) -> None:
        """Send a share of a step, and what came of it twice a second."""
        phases = [Phase(*phase) for phase in data["phases"]]
        flusher = gevent.spawn(self._flush_for_ever)
        try:
            self._ready().play(data["step"], phases, data["share"], data["shares"], self._tell)
        finally:
            flusher.kill()
            self._flush()
        self._runner.send_message("done", {})

    def alone(self, data: dict[str, Any]) -> None:
        """Ask once more."""
        answer = self._ready().alone(data["step"], Planned(*data["planned"]))
        self._runner.send_message("done", {"answer": answer})

    def _ready(self) -> Generator:
        if self.generator is None:
            raise CrewError("asked to play before it was prepared")
        return self.generator

    def _tell(self, one: Outcome) -> None:
        self._kept.append(outcome.pack(one))
        report(self.environment, one)

    def _flush_for_ever(self) -> None:
        while True:
            gevent.sleep(FLUSH_S)
            self._flush()

    def _flush(self) -> None:
        kept, self._kept = self._kept, []
        if kept:
            self._runner.send_message("outcomes", {"rows": kept})


def report(environment: Environment, one: Outcome) -> None:
    """Tell Locust, for its web page and its CSV: times from the planned arrival, there too."""
    fault = one.fault or ("" if one.right else "wrong answer")
    fire: Callable[..., None] = environment.events.request.fire
    common: dict[str, Any] = {"name": one.traffic, "context": {}, "exception": RuntimeError(fault) if fault else None}
    fire(request_type="POST", response_time=one.e2e_s * 1000, response_length=one.sent_bytes, **common)
    if one.ttft_s is not None:
        fire(request_type="TTFT", response_time=one.ttft_s * 1000, response_length=0, **common)
    if one.gaps_s:
        mean_s = sum(one.gaps_s) / len(one.gaps_s)
        fire(request_type="ITL", response_time=mean_s * 1000, response_length=0, **common)


@dataclass
class LocustCrew:
    """The master's side; see conduct.Crew."""

    environment: Environment
    timeout_s: float
    keep: Callable[[Outcome], object]
    """Takes every outcome as it comes."""
    workers: tuple[str, ...] = ()
    _outcomes: list[Outcome] = field(default_factory=list)
    _done: dict[str, AsyncResult] = field(default_factory=dict)
    spawned: Event = field(default_factory=Event)

    def listen(self) -> None:
        """Take answers from the workers."""
        self._runner.register_message("outcomes", self._on_outcomes)
        self._runner.register_message("done", self._on_done)
        self._runner.register_message("failed", self._on_failed)

    @property
    def _runner(self) -> Runner:
        runner = self.environment.runner
        if runner is None or isinstance(runner, WorkerRunner):
            raise CrewError("only a master has a crew")
        return runner

    def assemble(self, asked: scenario.Scenario, model: str, answers: Way, nonce: int) -> None:
        """Wait for every generator and have it draw its pictures. Raises CrewError."""
        self.spawned.wait()
        runner = self._runner
        self.workers = self._reported(runner) if isinstance(runner, MasterRunner) else (LOCAL,)
        told = {"scenario": scenario.dump(asked), "model": model, "answers": answers, "nonce": nonce}
        self._all("prepare", lambda _: told, DRAWING_DEADLINE_S)

    @staticmethod
    def _reported(runner: MasterRunner) -> tuple[str, ...]:
        """Wait for as many users as were asked for: workers report theirs after "spawning complete"."""
        end = time.monotonic() + GRACE_S
        while True:
            found = tuple(client.id for client in runner.clients.values() if any(client.user_classes_count.values()))
            if found and sum(runner.reported_user_classes_count.values()) >= runner.target_user_count:
                return found
            if time.monotonic() > end:
                raise CrewError(f"{len(found)} generators came up: {runner.target_user_count} were asked for")
            gevent.sleep(0.1)

    def play(self, step: int, phases: Sequence[Phase]) -> list[Outcome]:
        """Send a step."""
        self._outcomes = []
        shares = len(self.workers)
        plain = [msgspec.structs.astuple(phase) for phase in phases]
        deadline_s = sum(phase.lasts_s for phase in phases) + self.timeout_s + GRACE_S
        self._all("play", lambda share: {"step": step, "phases": plain, "share": share, "shares": shares}, deadline_s)
        return self._outcomes

    def alone(self, step: int, planned: Planned) -> str:
        """Ask again, by the first generator."""
        (answer,) = self._tell({self.workers[0]: {"step": step, "planned": _row(planned)}}, "alone", self.timeout_s * 2)
        return str(answer["answer"])

    def _all(self, kind: str, of: Callable[[int], dict[str, Any]], deadline_s: float) -> None:
        self._tell({worker: of(share) for share, worker in enumerate(self.workers)}, kind, deadline_s)

    def _tell(self, orders: dict[str, dict[str, Any]], kind: str, deadline_s: float) -> list[dict[str, Any]]:
        self._done = {worker: AsyncResult() for worker in orders}
        for worker, data in orders.items():
            self._runner.send_message(kind, data, client_id=worker)
        end = time.monotonic() + deadline_s
        try:
            return [done.get(timeout=max(0.0, end - time.monotonic())) for done in self._done.values()]
        except gevent.Timeout as exc:
            silent = [worker for worker, done in self._done.items() if not done.ready()]
            raise CrewError(f"{len(silent)} of {len(orders)} generators never ended: {', '.join(silent)}") from exc

    def _on_outcomes(self, environment: Environment, msg: Any) -> None:  # noqa: ANN401, ARG002 - Locust's call
        for row in msg.data["rows"]:
            one = outcome.unpack(row)
            self._outcomes.append(one)
            self.keep(one)

    def _on_done(self, environment: Environment, msg: Any) -> None:  # noqa: ANN401, ARG002 - Locust's call
        self._done[msg.node_id].set(msg.data)

    def _on_failed(self, environment: Environment, msg: Any) -> None:  # noqa: ANN401, ARG002 - Locust's call
        self._done[msg.node_id].set_exception(CrewError(f"generator {msg.node_id}: {msg.data['why']}"))


def _row(planned: Planned) -> list[Any]:
    return [getattr(planned, name) for name in Planned.__dataclass_fields__]
