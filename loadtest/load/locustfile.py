"""What Locust loads: one user a process, which is the generator, and on the master the course of the run.

    python -m loadtest.load run steady          # starts Locust with this file and all that it needs

By hand (more machines): set LOAD_RUN and LOAD_KEY as `python -m loadtest.load run … --print` shows, then
`locust -f loadtest/load/locustfile.py --master …` and `… --worker …`. Locust's number of users is that of the
generators: one for each worker. How much load there is says the scenario.
"""

from __future__ import annotations

import logging
import secrets
import sys
from typing import TYPE_CHECKING, Any

import gevent
from locust import User, events
from locust.runners import MasterRunner, WorkerRunner

from loadtest.load import conduct, crew, machine, memory, results, settings, target
from loadtest.load.scenario import ScenarioError

if TYPE_CHECKING:
    from locust.env import Environment

MISSED, MISUSED = 1, 2
log = logging.getLogger("load")


class Generating(User):
    """One generator: does what the master orders, until it is stopped."""

    fixed_count = 0

    def run(self) -> None:  # type: ignore[misc]  # final for Locust's loop of tasks, which there is none of
        """Take over Locust's loop of tasks."""
        worker: crew.Worker = self.environment.load_worker
        while True:
            worker.work()

    tasks = [lambda _: None]  # noqa: RUF012 - Locust wants one, and reads it from the class


def course(
    environment: Environment, run: settings.Run, key: str, workers: crew.LocustCrew, kept: results.Folder
) -> None:
    """Conduct the run, write its folder, set the exit code, leave."""
    try:
        scenario = run.load()
        asked = target.ask(run, key)
        workers.assemble(scenario, asked.model, asked.answers, secrets.randbits(30))
        sources = [memory.gateway(run.metrics_url)] if run.metrics_url else []
        sources += [memory.engine(run.engine_port)] if run.engine_port else []
        watch = machine.Watch(machine.roots(run.url))
        with memory.Memory(sources) as seen:
            findings = conduct.conduct(scenario, workers, lambda: seen.timed, log.info, run.at_least_per_s, watch.look)
        met = kept.finish(run, findings, asked, len(workers.workers), seen.timed)
        environment.process_exit_code = 0 if met else MISSED
    except (conduct.CrewError, target.TargetError, ScenarioError) as exc:
        log.error("%s", exc)  # noqa: TRY400 - one line says it all
        environment.process_exit_code = MISUSED
    kept.close()
    if environment.runner and (environment.parsed_options is None or environment.parsed_options.headless):
        gevent.spawn(environment.runner.quit)
    else:
        log.info("done: see %s; Ctrl-C ends the web page", run.out)


@events.init.add_listener
def on_init(environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust's call
    """Give this process its part: to generate, to conduct, or both."""
    try:
        run, key = settings.from_environ()
        if not isinstance(environment.runner, WorkerRunner):  # a worker's comes from its master
            run.load()
    except ScenarioError as exc:
        log.error("%s", exc)  # noqa: TRY400
        sys.exit(MISUSED)
    runner = environment.runner
    if not isinstance(runner, MasterRunner):
        worker = crew.Worker(environment, run, key)
        worker.listen()
        environment.load_worker = worker  # type: ignore[attr-defined]
    if isinstance(runner, WorkerRunner):
        return

    @environment.events.test_start.add_listener
    def on_start(**_: Any) -> None:  # noqa: ANN401
        kept = results.Folder(run.out)
        workers = crew.LocustCrew(environment, run.timeout_s, kept.keep)
        workers.listen()
        environment.events.spawning_complete.add_listener(lambda **_: workers.spawned.set())
        gevent.spawn(course, environment, run, key, workers, kept)
