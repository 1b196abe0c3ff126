"""The order of a deployment and of a rollback: change, look, keep it or go back. Every decision is here.

helm's own --rollback-on-failure is not used: it would uninstall a first release that failed, with what could explain
the failure; and one way back, for a release that does not start and for one that starts and cannot see, is tested once.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from delivery import helm
from delivery.record import Entry, Result, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from delivery.helm import Helm, Revision
    from delivery.tools import Done

CANARY_BEYOND_S = 900.0
"""Beyond its soak: some questions at up to a minute each, and Prometheus."""


@dataclass(frozen=True)
class Canary:
    """How to look at a release."""

    argv: tuple[str, ...]
    """The canary with address and set."""
    compare: tuple[str, ...] = ()
    """Its options for Prometheus; empty: nothing is compared."""
    soak_s: float = 0.0
    report: Path | None = None

    def command(self, before_at: float | None) -> list[str]:
        """Look at a new release, compared with the one that served until `before_at`; None: only whether it sees."""
        words = list(self.argv)
        if before_at is not None:
            words += ["--soak-s", f"{self.soak_s:g}", *self.compare]
            words += ["--before-at", f"{before_at:.0f}"] if self.compare else []
        return [*words, "--report", str(self.report)] if self.report else words


@dataclass
class Change:
    """One attempt to change a release; fills the entry as it goes."""

    helm: Helm
    canary: Canary
    entry: Entry
    run: Callable[[list[str], float], Done]
    clock: Callable[[], float] = time.time

    def deploy(self, chart: str, words: Sequence[str], *, allow_older: bool = True) -> Result:
        """Install or upgrade, look, keep it or go back."""
        description = f"{self.entry.version} {self.entry.commit[:12]}".strip()

        def choose(history: Sequence[Revision]) -> tuple[str, Callable[[], Done]]:
            if not allow_older and (newer := helm.overtaken(history, self.entry.version)):
                raise LookupError(f"{newer} serves already, which is newer than {self.entry.version}")
            return "upgrade", lambda: self.helm.upgrade(chart, words, description)

        return self._carry_out(choose)

    def roll_back(self, wanted: str) -> Result:
        """Go to a kept revision, look; if that one is no better, return."""

        def choose(history: Sequence[Revision]) -> tuple[str, Callable[[], Done]]:
            to = helm.find(history, wanted)
            self.entry.version = self.entry.version or to.description
            return f"rollback to {to.number}", lambda: self.helm.rollback(to)

        return self._carry_out(choose)

    def _carry_out(self, choose: Callable[[Sequence[Revision]], tuple[str, Callable[[], Done]]]) -> Result:
        try:
            history = self._settled(self.helm.history())
            name, act = choose(history)
        except (helm.HelmError, LookupError) as exc:
            return self._ended(Result.FAILED, str(exc.args[0]))
        before, before_at = helm.serving(history), self.clock()
        self.entry.revision_before = before.number if before else None
        done = self._step(name, act)
        if not done.ok:
            return self._after_a_failed(name, done, history, before)
        self.entry.revision_after = self._newest()
        looked = self._look("canary", before_at)
        if looked.ok:
            return self._ended(Result.SUCCEEDED, "")
        return self._back(before, f"canary: {looked.reason}")

    def _settled(self, history: tuple[Revision, ...]) -> tuple[Revision, ...]:
        """Recover a release that a killed run left half way: helm would refuse every change. Raises HelmError."""
        if not history or not history[-1].pending:
            return history
        newest, good = history[-1], helm.serving(history)
        age_s = self.clock() - newest.updated.timestamp() if newest.updated else 0.0
        if age_s < self.helm.timeout_s:
            raise helm.HelmError(
                f"revision {newest.number} is {newest.status} since {age_s:.0f} s: another operation seems to be under "
                f"way. Run again when it has ended, or {self.helm.timeout_s:g} s after it began"
            )
        recover = (lambda: self.helm.rollback(good)) if good else self.helm.uninstall
        done = self._step(f"recover from {newest.status}", recover)
        if not done.ok:
            raise helm.HelmError(f"revision {newest.number} is {newest.status} and cannot be recovered: {done.reason}")
        return self.helm.history()

    def _after_a_failed(self, name: str, done: Done, history: Sequence[Revision], before: Revision | None) -> Result:
        """Go back, unless helm changed nothing: a chart that does not render never reaches the cluster."""
        newest = self._newest()
        if newest is not None and newest == (history[-1].number if history else 0):
            return self._ended(Result.FAILED, f"{name}: {done.reason}")
        self.entry.revision_after = newest
        return self._back(before, f"{name}: {done.reason}")

    def _back(self, to: Revision | None, reason: str) -> Result:
        if to is None:
            return self._ended(
                Result.FAILED, f"{reason}; a first release has nothing to go back to, so it is left there"
            )
        done = self._step(f"rollback to {to.number}", lambda: self.helm.rollback(to))
        if not done.ok:
            return self._ended(Result.ROLLBACK_FAILED, f"{reason}; then the rollback: {done.reason}")
        self.entry.revision_after = self._newest()
        looked = self._look("canary after rollback", None)
        if not looked.ok:
            return self._ended(
                Result.ROLLBACK_FAILED, f"{reason}; and the release before is no better: {looked.reason}"
            )
        return self._ended(Result.ROLLED_BACK, reason)

    def _look(self, name: str, before_at: float | None) -> Done:
        """Run the canary; keep what its report says."""
        report = self.canary.report
        if report:
            report.unlink(missing_ok=True)
        argv = self.canary.command(before_at)
        done = self._step(name, lambda: self.run(argv, self.canary.soak_s + CANARY_BEYOND_S))
        print(done.out, end="", flush=True)
        if report and report.is_file():
            with contextlib.suppress(ValueError):  # cut off, as when the canary was stopped
                found = json.loads(report.read_text(encoding="utf-8"))
                self.entry.canary[name] = {key: found.get(key) for key in ("golden", "reasons", "now", "before")}
        return done

    def _newest(self) -> int | None:
        """Return the newest revision's number, 0 before the first; None when helm does not tell."""
        try:
            history = self.helm.history()
        except helm.HelmError:
            return None
        return history[-1].number if history else 0

    def _step(self, name: str, act: Callable[[], Done]) -> Done:
        began = self.clock()
        print(f"delivery: {name} …", flush=True)
        done = act()
        seconds = round(self.clock() - began, 1)
        self.entry.steps.append(Step(name, done.ok, seconds, "" if done.ok else done.reason))
        print(f"delivery: {name}: {'ok' if done.ok else done.reason} ({seconds:g} s)", flush=True)
        return done

    def _ended(self, result: Result, reason: str) -> Result:
        self.entry.result, self.entry.reason = result, reason
        return result
