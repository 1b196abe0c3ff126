"""`deploy.sh deploy | rollback | status | list | converge`: one GPU host's command line; deploy.sh has the usage."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from delivery import record
from delivery.record import Entry, Result

from serving.exchange import NoExchange, request
from serving.host import settings as host_settings
from serving.host.change import Cancelled, Change, Fault
from serving.host.containers import IMAGE, Containers, Unit
from serving.host.proxy import Proxy, ProxyGone, say_to
from serving.host.report import Reporter
from serving.host.state import BadState, StateFile
from serving.host.tools import Tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serving.host.settings import Settings

EX_BAD, EX_USAGE, EX_PERSON, EX_BUSY = 1, 2, 3, 75
CODES = {Result.SUCCEEDED: 0, Result.ROLLBACK_FAILED: EX_PERSON, Result.UNKNOWN: EX_PERSON}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PROBE_TIMEOUT_S = 5.0
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
COMMIT = re.compile(r"[0-9a-f]{7,64}")
ACTOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
RUN_URL = re.compile(r"https://[A-Za-z0-9.-]{1,100}/[A-Za-z0-9._/-]{1,200}")


class Busy(Exception):
    """Another run has the lock."""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="deploy.sh")
    top.add_argument("--etc", type=Path, required=True, help=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", required=True)
    deploy = commands.add_parser("deploy", help="bring a version up")
    deploy.add_argument("images", nargs="+", type=_like(IMAGE), metavar="IMAGE@sha256:…")
    deploy.add_argument("--version", type=_like(VERSION), required=True)
    deploy.add_argument("--commit", type=_like(COMMIT), help="that it was built of")
    deploy.add_argument("--unless-newer", action="store_true", help="not when what serves is newer, as a release says")
    back = commands.add_parser("rollback", help="go to a kept version")
    back.add_argument("version", nargs="?", type=_like(VERSION), help="default: the one that served before")
    for command in (deploy, back):
        command.add_argument("--actor", type=_like(ACTOR), help="who asks for it")
        command.add_argument("--run-url", type=_like(RUN_URL), help="page of the run that asks for it")
    commands.add_parser("status", help="what serves, and how the last attempt ended")
    commands.add_parser("list", help="the kept versions")
    commands.add_parser("converge", help="make what runs what the state says")
    return top


def _like(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form {pattern.pattern}")
        return text

    return check


def say(text: str) -> None:
    """Print a line. A deployment goes on when the connection that it was asked for over is gone."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # to the end


def status_of(url: str) -> int | None:
    """Ask whether something answers."""
    try:
        return request("GET", url, {}, None, PROBE_TIMEOUT_S)[0]
    except NoExchange:
        return None


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the host's lock; children do not inherit it, so it ends with this process. Raises Busy."""
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy from None
        yield


def images_of(given: Sequence[str], settings: Settings) -> dict[str, str]:
    """Tell the gateway's image from the engine's by their repositories. Raises BadSettings."""
    kinds = {settings.gateway_repository: "gateway", settings.engine_repository: "engine"}
    found: dict[str, str] = {}
    for image in given:
        repository = image.partition("@")[0]
        if repository not in kinds or kinds[repository] in found:
            raise host_settings.BadSettings(f"{image}: one image of each of {', '.join(kinds)}, and no other")
        found[kinds[repository]] = image
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return an exit code."""
    asked = parser().parse_args(argv)
    os.umask(0o077)
    try:
        settings = host_settings.load(asked.etc.resolve())
        images = images_of(asked.images, settings) if asked.command == "deploy" else {}
        change = build(settings, asked)
        if asked.command in {"status", "list"}:
            return {"status": show_status, "list": show_list}[asked.command](change)
        with lock(settings.state / "lock"):
            return carry_out(change, asked, images)
    except host_settings.BadSettings as exc:
        print(f"host: {exc}", file=sys.stderr)
        return EX_USAGE
    except BadState as exc:
        print(f"host: {exc}", file=sys.stderr)
        return EX_PERSON
    except Busy:
        print("host: another deployment is under way; deploy.sh status", file=sys.stderr)
        return EX_BUSY


def build(settings: Settings, asked: argparse.Namespace) -> Change:
    """Put the parts together."""
    (settings.state / "textfile").mkdir(parents=True, exist_ok=True, mode=0o755)
    run = Tools(settings.state / "child").run
    reporter = Reporter(
        settings.state / "deploy.log",
        settings.state / "textfile" / "deploy.prom",
        host_settings.read_env(settings.etc / "secrets.env"),
        say,
    )
    entry = Entry(
        kind=asked.command,
        environment=settings.environment,
        release=settings.name,
        actor=getattr(asked, "actor", None) or "",
        commit=getattr(asked, "commit", None) or "",
        version=getattr(asked, "version", None) or "",
        run_url=getattr(asked, "run_url", None) or "",
        started_at=record.stamp(time.time()),
    )
    proxy = Proxy(settings.state / "serving.map", say_to(settings.proxy_socket))
    states = StateFile(settings.state / "state.json")
    return Change(settings, states, Containers(settings, run), proxy, reporter, run, status_of, entry)


def carry_out(change: Change, asked: argparse.Namespace, images: dict[str, str]) -> int:
    """Deploy, roll back or converge, with the lock held."""
    for number in SIGNALS:
        signal.signal(number, _cancel)
    if Tools(change.settings.state / "child").end_orphans():
        say("host: ended what a killed run had left running")
    entry = change.entry
    try:
        if asked.command == "converge":
            return converge(change)
        if asked.command == "deploy":
            change.deploy(asked.version, images, unless_newer=asked.unless_newer)
        else:
            change.roll_back(asked.version)
    except Cancelled:
        return _taken_back(change)
    except Exception:  # noqa: BLE001  # the outermost rescue: whatever it is, people are told
        traceback.print_exc()
        return EX_PERSON
    say(f"host: {entry.result.value}" + (f": {entry.reason}" if entry.reason else ""))
    return CODES.get(entry.result, EX_BAD)


def _taken_back(change: Change) -> int:
    """Take back what a signal cut short; the log has it already."""
    try:
        change.settle(change.states.load())
    except (Fault, ProxyGone) as exc:
        say(f"host: cancelled; not taken back: {exc}; run deploy.sh converge")
        return EX_PERSON
    say("host: cancelled, and taken back")
    return EX_BAD


def converge(change: Change) -> int:
    """Make what runs what the state says, and wait until it is ready."""
    state = change.conclude(change.states.load())
    try:
        if change.settings.platform:
            done = change.containers.start_platform()
            if not done.ok:  # dashboards are no reason to serve nobody
                say(f"host: the platform is not up: {done.reason}")
        well = change.settle(state)
        if state.serving:
            change.wait_ready(state.serving)
    except (Fault, ProxyGone) as exc:
        say(f"host: {exc}")
        return EX_BAD
    served = f"{state.serving.version} serves" if state.serving else "nothing was deployed yet"
    say(f"host: {served}" + ("" if well else ", started anew"))
    return 0


def show_status(change: Change) -> int:
    """Say what serves; 0 when it does."""
    state = change.states.load()
    serving, current = state.serving, state.current
    if state.attempt:
        entry = state.attempt.entry
        say(f"under way, or killed: {entry['kind']} {entry['version']} since {entry['started_at']}")
    if not serving or not current:
        say("serves: nothing")
        return EX_BAD
    code = status_of(f"http://127.0.0.1:{change.settings.gateway_ports[serving.gateway_slot]}/readyz")
    ready = code == 200  # noqa: PLR2004
    say(f"serves: {current.version} (commit {current.commit or '?'}), {'ready' if ready else f'NOT READY ({code})'}")
    for unit, image in (
        (Unit("gateway", serving.gateway_slot), current.gateway),
        (Unit("engine", serving.engine_slot), current.engine),
    ):
        runs = change.containers.running(unit) == image
        say(f"  {unit.kind} in slot {unit.slot}: {image}{'' if runs else ' NOT RUNNING'}")
    if last := change.reporter.last():
        say(f"last: {last['kind']} {last['version']} {last['result']} {last['finished_at']} {last['reason']}".rstrip())
    return 0 if ready else EX_BAD


def show_list(change: Change) -> int:
    """List the kept versions, newest first."""
    state = change.states.load()
    for release in reversed(state.releases):
        mark = "*" if release == state.current else " "
        say(f"{mark} {release.version}  {release.served_at}  {release.commit[:12] or '-'}")
        say(f"    {release.gateway}\n    {release.engine}")
    return 0


def _cancel(*_: object) -> NoReturn:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # once is enough: the way back is not cut short
    raise Cancelled


if __name__ == "__main__":
    sys.exit(main())
