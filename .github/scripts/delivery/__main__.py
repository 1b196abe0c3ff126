"""`python3 -m delivery deploy | rollback | releases | given-up | notify`: the command line of the delivery."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from delivery import access, helm, notify, record, tools
from delivery.change import Canary, Change
from delivery.record import Entry, Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EX_BAD, EX_PERSON = 1, 3
CODES = {Result.SUCCEEDED: 0, Result.ROLLBACK_FAILED: EX_PERSON, Result.UNKNOWN: EX_PERSON}
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")

EPILOG = """\
exit codes:
  0    it serves, and sees
  1    it does not: nothing was changed, or the release before serves again; or it was cancelled
  2    the command line is wrong
  3    the way back failed, too, or this tool did: a person is needed

environment:
  CANARY_API_KEY                      the key that the canary asks with
  NOTIFY_<SERVICE>_URL, …_SECRET      WECOM, DINGTALK, FEISHU, SLACK, WEBHOOK; those without an address are not told
  GITHUB_*                            who, what commit, which run: as GitHub Actions sets them
"""


class Cancelled(BaseException):
    """A signal came; nothing may catch it on its way to the log."""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog="python3 -m delivery", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True)
    deploy = commands.add_parser("deploy", help="helm upgrade --install, canary, keep it or go back")
    deploy.add_argument("--chart", required=True, help="folder, package or oci:// address")
    deploy.add_argument("--chart-version", help="of an oci:// chart")
    deploy.add_argument("--values", action="append", default=[], metavar="FILE", help="values; may be repeated")
    deploy.add_argument(
        "--set-string", action="append", default=[], metavar="KEY=VALUE", help="such as gateway.image.digest=sha256:…"
    )
    deploy.add_argument("--version", default="", help="what is deployed, for people")
    deploy.add_argument("--allow-older", action="store_true", help="also when what serves is newer")
    back = commands.add_parser("rollback", help="go to a kept release, canary, return if it is no better")
    back.add_argument("--to", required=True, help="revision, version or commit")
    back.set_defaults(version="", set_string=[])
    listing = commands.add_parser("releases", help="list the kept releases")
    given_up = commands.add_parser("given-up", help="write down and tell that a step before this tool failed")
    given_up.add_argument("--kind", choices=("deploy", "rollback"), required=True)
    given_up.add_argument("--version", default="", help="what was to be deployed")
    given_up.add_argument("--no-cluster", action="store_true", help="of a GPU host: there is none to keep the log in")
    given_up.set_defaults(set_string=[])
    for command in (deploy, back, listing, given_up):
        command.add_argument("--release", type=_name, required=True)
        command.add_argument("--namespace", type=_name, required=True)
        command.add_argument("--timeout-s", type=float, default=1500.0, help="to become ready (default: %(default)s)")
    for command in (deploy, back, given_up):
        command.add_argument("--environment", required=True, help="staging, production …")
        command.add_argument("--log", type=Path, default=Path("deploy-log.json"), help="default: %(default)s")
    for command in (deploy, back):
        command.add_argument("--canary", required=True, metavar="WORDS", help="the canary's command, as one word")
        command.add_argument("--compare", default="", metavar="WORDS", help="its options for Prometheus, as one word")
        command.add_argument("--soak-s", type=float, default=120.0, help="how long it looks (default: %(default)s)")
    commands.add_parser("kubeconfig", help="write $KUBECONFIG, from KUBE_SERVER, KUBE_CA, KUBE_AUDIENCE or KUBE_CONFIG")
    commands.add_parser("token", help="print the run's identity as a credential: for kubectl and helm")
    told = commands.add_parser("notify", help="send a test message; fails when a service does not take it")
    told.set_defaults(release="test", environment="test", version="", set_string=[])
    return top


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name in Kubernetes")
    return text


def entry_of(asked: argparse.Namespace, environ: Mapping[str, str], now: float) -> Entry:
    """Begin the log entry."""
    run = environ.get("GITHUB_RUN_ID")
    address = f"{environ.get('GITHUB_SERVER_URL')}/{environ.get('GITHUB_REPOSITORY')}/actions/runs/{run}" if run else ""
    images = dict(pair.split("=", 1) for pair in asked.set_string if ".image.digest=" in pair)
    return Entry(
        kind=getattr(asked, "kind", asked.command),
        environment=asked.environment,
        release=asked.release,
        actor=environ.get("GITHUB_ACTOR", ""),
        commit=environ.get("GITHUB_SHA", ""),
        version=asked.version,
        run_url=address,
        started_at=record.stamp(now),
        images=images,
    )


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command that the arguments name; return an exit code."""
    asked = parser().parse_args(argv)
    if asked.command == "notify":
        return 0 if notify.tell(entry_of(asked, environ, time.time()), environ, _warn) else EX_BAD
    if asked.command in {"kubeconfig", "token"}:
        return reach(asked.command, environ)
    if asked.command == "given-up":
        return give_up(asked, environ)
    release = helm.Helm(asked.release, asked.namespace, tools.run, asked.timeout_s)
    if asked.command == "releases":
        try:
            print(helm.table(release.history(), time.time()))
        except helm.HelmError as exc:
            print(f"delivery: {exc}", file=sys.stderr)
            return EX_BAD
        return 0
    return change(asked, release, environ)


def reach(command: str, environ: Mapping[str, str]) -> int:
    """Open the way to the cluster."""
    try:
        if command == "token":
            print(access.token(environ))
        else:
            access.write_kubeconfig(environ)
    except access.NoAccess as exc:
        print(f"delivery: {exc}", file=sys.stderr)
        return EX_BAD
    return 0


def change(asked: argparse.Namespace, release: helm.Helm, environ: Mapping[str, str]) -> int:
    """Deploy or roll back; write it down and tell people, however it ends."""
    began = time.time()
    entry = entry_of(asked, environ, began)
    report = asked.log.with_name("canary.json")
    canary = Canary(tuple(shlex.split(asked.canary)), tuple(shlex.split(asked.compare)), asked.soak_s, report)
    attempt = Change(release, canary, entry, tools.run)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _cancel)
    try:
        notify.tell(entry, environ, _warn)
        if asked.command == "deploy":
            words = [word for file in asked.values for word in ("--values", file)]
            words += [word for pair in asked.set_string for word in ("--set-string", pair)]
            words += ["--version", asked.chart_version] if asked.chart_version else []
            attempt.deploy(asked.chart, words, allow_older=asked.allow_older)
        else:
            attempt.roll_back(asked.to)
    except Cancelled:
        entry.result, entry.reason = Result.CANCELLED, "stopped from outside; the next run recovers the release"
    except Exception as exc:  # noqa: BLE001  # the outermost rescue: whatever it is, people are told
        traceback.print_exc()
        entry.result, entry.reason = Result.UNKNOWN, f"the tool itself failed: {exc!r}"
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        finish(entry, asked, environ, began)
    return CODES.get(entry.result, EX_BAD)


def give_up(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Write down and tell of an attempt that never reached helm: a tool, a signature or a setting was missing."""
    began = time.time()
    entry = entry_of(asked, environ, began)
    entry.result, entry.reason = Result.FAILED, "a step before the change failed: the run's page shows which"
    finish(entry, asked, environ, began)
    return EX_BAD


def finish(entry: Entry, asked: argparse.Namespace, environ: Mapping[str, str], began: float) -> None:
    """Write an entry to its file, tell people, keep it in the cluster, put it on the run's page."""
    # The file comes first: whatever follows may be cut short.
    entry.finished_at, entry.seconds = record.stamp(time.time()), round(time.time() - began, 1)
    record.write(entry, asked.log)
    notify.tell(entry, environ, _warn)
    kept_elsewhere = getattr(asked, "no_cluster", False)
    if not kept_elsewhere and (fault := record.keep_in_cluster(entry, asked.namespace, tools.run)):
        _warn(f"the deploy log is not in the cluster, only in {asked.log}: {fault}")
    print(f"delivery: {entry.result.value}" + (f": {entry.reason}" if entry.reason else ""))
    _summarize(entry, environ)


def _cancel(*_: object) -> NoReturn:
    raise Cancelled


def _warn(text: str) -> None:
    """Say something that must be seen without failing the run; the annotation is GitHub's."""
    prefix = "" if text.endswith(": told") else "::warning::"
    print(prefix + text, flush=True)


def _summarize(entry: Entry, environ: Mapping[str, str]) -> None:
    """Put the outcome on the run's page."""
    if path := environ.get("GITHUB_STEP_SUMMARY"):
        message = notify.message_of(entry)
        table = ["| step | result | s |", "| --- | --- | --: |"]
        table += [f"| {step.name} | {notify.plain(step.detail) or 'ok'} | {step.seconds:g} |" for step in entry.steps]
        with Path(path).open("a", encoding="utf-8") as page:
            page.write("\n\n".join([f"### {message.title}", *message.lines, "\n".join(table)]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
