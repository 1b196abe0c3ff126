"""The order of a deployment and of a rollback on one host: start beside, look, switch, look, keep it or go back.

`settle` makes what runs what the state says, from wherever a run was killed. It is the way back, the cleaning up after
a switch and the start of every run, so there is one of each to test. The state is changed once, when the new version
has answered through the public port: before that a killed run is taken back, after that it is completed.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from delivery import record, versions
from delivery.record import Entry, Result, Step

from serving.host.containers import UNITS, Unit
from serving.host.proxy import ProxyGone
from serving.host.settings import SLOTS
from serving.host.state import Attempt, Release, Serving, State, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from delivery.tools import Done

    from serving.host.containers import Containers, Run
    from serving.host.proxy import Proxy
    from serving.host.report import Reporter
    from serving.host.settings import Settings
    from serving.host.state import StateFile

CANARY_TIMEOUT_S = 900.0
LOOK_EVERY_S = 0.5
CRASHES = 3
"""A container that the container engine started anew so often does not come up."""


class Cancelled(BaseException):
    """A signal came; nothing may catch it on its way to the log."""


class Fault(Exception):
    """A step did not work; the message says what was found."""


@dataclass
class Change:
    """One run of the program; fills the entry as it goes."""

    settings: Settings
    states: StateFile
    containers: Containers
    proxy: Proxy
    reporter: Reporter
    run: Run
    get: Callable[[str], int | None]
    """Status of a GET; None when nothing answers."""
    entry: Entry
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], object] = time.sleep

    def deploy(self, version: str, images: dict[str, str], *, unless_newer: bool = False) -> None:
        """Bring a version up; `images` are those that change, by kind."""

        def choose(state: State) -> Release:
            now = state.current
            if now and unless_newer and versions.newer(now.version, version):
                raise LookupError(f"{now.version} serves already, which is newer than {version}")
            given = {"gateway": now.gateway, "engine": now.engine} if now else {}
            given |= images
            if missing := [kind for kind in ("gateway", "engine") if kind not in given]:
                raise LookupError(f"nothing serves yet: give the image of the {missing[0]}, too")
            new = Release(version, given["gateway"], given["engine"], self.entry.commit)
            kept = state.release(version)
            if kept and (kept.gateway, kept.engine) != (new.gateway, new.engine):
                raise LookupError(
                    f"{version} is kept with other images: a version is built once, give this one its own"
                )
            return kept or new

        self._attempt(choose)

    def roll_back(self, version: str | None) -> None:
        """Go to a kept version; None: to the one that served before."""

        def choose(state: State) -> Release:
            found = state.release(version) if version else state.previous
            if not found:
                kept = ", ".join(release.version for release in state.releases) or "none"
                raise LookupError(f"{version or 'a version that served before'} is not kept; kept are: {kept}")
            self.entry.version, self.entry.commit = found.version, found.commit
            return found

        self._attempt(choose)

    def _attempt(self, choose: Callable[[State], Release]) -> None:
        began = self.clock()
        state = self.conclude(self.states.load())
        try:
            new = choose(state)
        except LookupError as exc:
            self._ended(Result.FAILED, str(exc.args[0]))
            self._finish(began)
            return
        self.entry.images = {"gateway": new.gateway, "engine": new.engine}
        state = replace(state, attempt=Attempt(asdict(self.entry)))
        self.states.save(state)
        self.reporter.began(self.entry)
        try:
            self._carry_out(state, new)
        except Cancelled:
            if self.entry.result is Result.UNDER_WAY:
                self._ended(Result.CANCELLED, "stopped from outside; what served before serves")
            raise
        except Exception as exc:
            self._ended(Result.UNKNOWN, f"the program itself failed: {exc!r}")
            raise
        finally:
            self._finish(began)

    def conclude(self, state: State) -> State:
        """Write down how an attempt ended whose run was killed."""
        if not state.attempt:
            return state
        entry = Entry(**{**state.attempt.entry, "result": Result.UNDER_WAY, "steps": []})
        last = self.reporter.last()
        if not last or (last["started_at"], last["kind"]) != (entry.started_at, entry.kind):
            entry.result = Result.SUCCEEDED if state.attempt.committed else Result.CANCELLED
            entry.reason = "its run was killed " + (
                "after the switch: completed by the next"
                if state.attempt.committed
                else "and is taken back by the next"
            )
            entry.finished_at = record.stamp(self.clock())
            self.reporter.ended(entry, self.clock())
        state = replace(state, attempt=None)
        self.states.save(state)
        return state

    def settle(self, state: State) -> bool:
        """Make what runs what the state says, without waiting for readiness; return whether all of it ran already.

        What serves keeps serving: the way for clients comes first, and what is stopped is drained.
        Raises Fault, ProxyGone.
        """
        serving = state.serving
        keep = {}
        if serving and (release := state.current):
            keep[Unit("engine", serving.engine_slot)] = release.engine
            keep[Unit("gateway", serving.gateway_slot)] = release.gateway
        self.proxy.point(serving.gateway_slot if serving else None)
        # Gateways first: an engine that is stopped under its gateway would lose what is under way.
        for unit in UNITS:
            if unit not in keep:
                self._retire(unit)
        started = False
        for unit, image in keep.items():
            if self.containers.running(unit) != image:
                self._start(unit, image, serving, state.current)
                started = True
        return not started

    def wait_ready(self, serving: Serving) -> None:
        """Wait until a gateway has an engine that generates. Raises Fault."""
        units = [Unit("engine", serving.engine_slot), Unit("gateway", serving.gateway_slot)]
        self._wait(f"{self._gateway_url(serving)}/readyz", units)

    def look(self, url: str) -> None:
        """Ask the golden set. Raises Fault."""
        key = self.settings.etc / "canary.key"
        words = [sys.executable, "-m", "serving.canary", "--base-url", f"{url}/v1", "--set", self.settings.canary_set]
        environ = {"CANARY_API_KEY": key.read_text(encoding="utf-8").strip() if key.is_file() else ""}
        done = self.run(words, CANARY_TIMEOUT_S, environ)
        self.reporter.say(done.out.rstrip())
        if not done.ok:
            raise Fault(f"canary: {done.reason}")

    def _carry_out(self, state: State, new: Release) -> None:
        old = state.current
        try:
            self._step("settle", lambda: self.settle(state))
            if old and state.serving and (old.gateway, old.engine) == (new.gateway, new.engine):
                self._again(state.serving)
                return
            self._step("pull gateway", lambda: self._done(self.containers.pull(new.gateway)))
            self._step("pull engine", lambda: self._done(self.containers.pull(new.engine)))
            self._key(new.gateway)
        except (Fault, ProxyGone) as exc:
            self._ended(Result.FAILED, str(exc))
            return
        serving = self._slots(state, new)
        try:
            self._bring_up(state, new, serving)
        except (Fault, ProxyGone) as exc:
            self._back(state, serving, str(exc))
            return
        self._commit(state, new, serving)

    def _again(self, serving: Serving) -> None:
        """What is asked for serves already: look whether it does."""
        try:
            self._step("wait until ready", lambda: self.wait_ready(serving))
            self._step("canary", lambda: self.look(self.settings.public_url))
        except Fault as exc:
            self._ended(Result.FAILED, f"it serves already, and is not well: {exc}")
        else:
            self._ended(Result.SUCCEEDED, "")

    def _slots(self, state: State, new: Release) -> Serving:
        """Choose the places of a new version: a gateway's other slot; an engine's only when it changes."""
        serving, old = state.serving, state.current
        if not serving or not old:
            return Serving(new.version, SLOTS[0], SLOTS[0])
        other = dict(zip(SLOTS, reversed(SLOTS), strict=True))
        engine_slot = serving.engine_slot if new.engine == old.engine else other[serving.engine_slot]
        return Serving(new.version, other[serving.gateway_slot], engine_slot)

    def _bring_up(self, state: State, new: Release, serving: Serving) -> None:
        before = state.serving
        engine, gateway = Unit("engine", serving.engine_slot), Unit("gateway", serving.gateway_slot)
        start_gateway = lambda: self._start(gateway, new.gateway, serving, new)  # noqa: E731  # a step
        start_engine = lambda: self._start(engine, new.engine, serving, new)  # noqa: E731  # likewise
        changes = not before or before.engine_slot != serving.engine_slot
        if before and changes and self.settings.engine_swap == "replace":
            # One GPU: the new gateway takes the requests and holds them while no engine is there.
            self._step("start gateway", start_gateway)
            self._step("wait for gateway", lambda: self._wait(f"{self._gateway_url(serving)}/healthz", [gateway]))
            self._step("hold requests", lambda: self.proxy.point(serving.gateway_slot))
            self._step("drain", lambda: self._drain(before.gateway_slot))
            old_engine = Unit("engine", before.engine_slot)
            self._step("stop engine", lambda: self._done(self.containers.stop(old_engine)))
            self._step("start engine", start_engine)
            self._step("wait until ready", lambda: self.wait_ready(serving))
        else:
            if changes:
                self._step("start engine", start_engine)
            self._step("start gateway", start_gateway)
            self._step("wait until ready", lambda: self.wait_ready(serving))
            self._step("canary before the switch", lambda: self.look(self._gateway_url(serving)))
            self._step("switch", lambda: self.proxy.point(serving.gateway_slot))
        self._step("canary", lambda: self.look(self.settings.public_url))

    def _commit(self, state: State, new: Release, serving: Serving) -> None:
        forgotten = {image for release in state.releases for image in (release.gateway, release.engine)}
        new = replace(new, served_at=record.stamp(self.clock()))
        state = state.served(new, serving, self.settings.keep)
        state = replace(state, attempt=Attempt(asdict(self.entry), committed=True))
        self.states.save(state)
        self._ended(Result.SUCCEEDED, "")
        try:
            self._step("drain and stop the old", lambda: self.settle(state))
        except (Fault, ProxyGone) as exc:
            self.entry.reason = f"serves, but the old version is not gone: {exc}; the next run tries again"
        forgotten -= {image for release in state.releases for image in (release.gateway, release.engine)}
        for image in forgotten:
            self.containers.forget(image)

    def _back(self, state: State, failed: Serving, reason: str) -> None:
        self._keep_logs(failed, state.serving)
        try:
            self._step("back", lambda: self.settle(state))
            if not (before := state.serving):
                self._ended(Result.FAILED, f"{reason}; a first version has nothing to go back to")
                return
            self._step("wait until the old is ready", lambda: self.wait_ready(before))
            self._step("canary after the way back", lambda: self.look(self.settings.public_url))
        except (Fault, ProxyGone) as exc:
            self._ended(Result.ROLLBACK_FAILED, f"{reason}; then on the way back: {exc}")
        else:
            self._ended(Result.ROLLED_BACK, reason)

    def _keep_logs(self, failed: Serving, before: Serving | None) -> None:
        """Keep what the failed containers said: they are about to go."""
        folder = self.settings.state / "failed"
        folder.mkdir(mode=0o700, exist_ok=True)
        for unit in (Unit("gateway", failed.gateway_slot), Unit("engine", failed.engine_slot)):
            if not before or unit not in {Unit("gateway", before.gateway_slot), Unit("engine", before.engine_slot)}:
                write_whole(folder / f"{failed.version}-{unit.kind}.log", self.containers.log(unit))

    def _retire(self, unit: Unit) -> None:
        if self.containers.running(unit):
            if unit.kind == "gateway":
                if self.get(f"http://127.0.0.1:{self.settings.gateway_ports[unit.slot]}/readyz") == 200:  # noqa: PLR2004
                    self._drain(unit.slot)
                else:  # without an engine, what it holds cannot be answered: waiting would help nobody
                    self._done(self.containers.remove(unit))
                    return
            self._done(self.containers.stop(unit))
        self.containers.remove(unit)

    def _start(self, unit: Unit, image: str, serving: Serving | None, release: Release | None) -> None:
        engine_slot = serving.engine_slot if serving else unit.slot
        commit = release.commit if release else ""
        self._done(self.containers.start(unit, image, engine_slot, commit))

    def _drain(self, slot: str) -> None:
        """Wait until a gateway has no request of clients any more, or the time for that is over."""
        until = self.clock() + self.settings.drain_timeout_s
        while self.proxy.under_way(slot) and self.clock() < until:
            self.sleep(LOOK_EVERY_S)

    def _wait(self, url: str, units: list[Unit]) -> None:
        until, status = self.clock() + self.settings.ready_timeout_s, None
        while (status := self.get(url)) != 200:  # noqa: PLR2004
            for unit in units:
                if self.containers.crashes(unit) >= CRASHES:
                    raise Fault(
                        f"the {unit.kind} does not stay up: failed/*-{unit.kind}.log below {self.settings.state}"
                    )
            if self.clock() >= until:
                raise Fault(f"not ready after {self.settings.ready_timeout_s:g} s (status {status})")
            self.sleep(LOOK_EVERY_S)

    def _key(self, gateway: str) -> None:
        """Make the canary's own key where there is none, so that a new host needs nobody to log in. Raises Fault."""
        path = self.settings.etc / "canary.key"
        if not path.is_file():
            made = self.containers.make_key(gateway, "canary")
            self._done(made)
            write_whole(path, made.out.strip() + "\n")

    def _gateway_url(self, serving: Serving) -> str:
        return f"http://127.0.0.1:{self.settings.gateway_ports[serving.gateway_slot]}"

    def _done(self, done: Done) -> None:
        if not done.ok:
            self.reporter.say(done.err.rstrip())
            raise Fault(done.reason)

    def _step(self, name: str, act: Callable[[], object]) -> None:
        began, fault = self.clock(), ""
        self.reporter.say(f"host: {name} …")
        try:
            act()
        except (Fault, ProxyGone) as exc:
            fault = str(exc)
            raise
        finally:
            seconds = round(self.clock() - began, 1)
            self.entry.steps.append(Step(name, not fault, seconds, fault))
            self.reporter.say(f"host: {name}: {fault or 'ok'} ({seconds:g} s)")

    def _ended(self, result: Result, reason: str) -> None:
        self.entry.result, self.entry.reason = result, reason

    def _finish(self, began: float) -> None:
        self.entry.finished_at, self.entry.seconds = record.stamp(self.clock()), round(self.clock() - began, 1)
        self.reporter.ended(self.entry, self.clock())
        self.states.save(replace(self.states.load(), attempt=None))
