"""`python -m serving fetch`: the command line of a fetch."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from serving.weights.errors import EXIT_CODES, FetchError, Misconfigured
from serving.weights.fetch import Request, fetch
from serving.weights.sources import FORMS, open_source
from serving.weights.transfer import MIB, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

EX_SIGINT, EX_SIGTERM = 130, 143
MIN_PART_MIB, MAX_PARALLEL = 1, 64

DESCRIPTION = """\
Brings a checkpoint to DIR/current, once, verified. Safe to kill at any moment; run it again and it goes on. Safe to run
many times at once: one fetches, the others wait and find it done. Prints DIR/current on standard output.

Only safetensors and known text files are let in; everything else is left out with a line that says so.
Credentials come from the client libraries' own chains: AWS_*, HF_TOKEN, MODELSCOPE_API_TOKEN, profiles, roles.
"""
EPILOG = f"""{EXIT_CODES}
examples:
  python -m serving fetch --from hf://Qwen/Qwen3-VL-8B-Instruct --to /models/qwen3-vl-8b
  python -m serving fetch --from s3://models/qwen3-vl-8b-fp8 --to /models/qwen3-vl-8b-fp8 --keep 1
  python -m serving run --profile l4 --model /models/qwen3-vl-8b-fp8/current
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `fetch` to the commands."""
    parser = subparsers.add_parser(
        "fetch",
        help="bring weights to a local disk, once, verified",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", required=True, dest="source", metavar="URL", help=FORMS)
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="folder of this one checkpoint")
    parser.add_argument("--parallel", type=_parallel, default=8, metavar="N", help="connections (default: %(default)s)")
    parser.add_argument("--keep", type=_positive, default=2, metavar="N", help="revisions that stay, the current one among them (default: %(default)s)")  # fmt: skip  # noqa: E501
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="manifest.json or SHA256SUMS that the files must match (default: the one beside the weights)")  # fmt: skip  # noqa: E501
    parser.add_argument("--verify", action="store_true", help="hash again what is here, instead of comparing sizes and times of change")  # fmt: skip  # noqa: E501
    parser.add_argument("--stale-ok", action="store_true", help="when the source cannot be reached, be content with the current revision of the same source")  # fmt: skip  # noqa: E501
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="longest wait for another fetch into the same folder (default: for ever)")  # fmt: skip  # noqa: E501
    parser.add_argument("--part-mib", type=_positive, default=64, metavar="N", help="files larger than this are fetched in parts (default: %(default)s)")  # fmt: skip  # noqa: E501


def run(args: argparse.Namespace) -> int:
    """Fetch as the arguments say; return an exit code. Messages go to standard error, the path to standard output."""
    stop = threading.Event()
    with _signals(stop) as received:
        try:
            text = _read(args.manifest) if args.manifest else None
            request = Request(
                to=args.to,
                keep=args.keep,
                verify=args.verify,
                stale_ok=args.stale_ok,
                wait_s=args.wait,
                manifest_text=text,
                manifest_name=str(args.manifest),
                settings=Settings(parallel=args.parallel, part_bytes=args.part_mib * MIB),
            )
            outcome = fetch(request, open_source(args.source, args.parallel), _say, stop)
        except FetchError as exc:
            _say(str(exc))
            return received[0] if received else exc.exit_code
        except _Signalled:
            _say("stopped; what was fetched stays: run the same command to go on")
            return received[0]
    _say(f"{'already here' if outcome.was_there else 'fetched'}, verified: revision {outcome.digest[:12]}")
    print(outcome.path)
    return 0


class _Signalled(BaseException):
    """A signal arrived; not an Exception, so that no `except Exception` of a library keeps it."""


@contextmanager
def _signals(stop: threading.Event) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end a fetch in order, also for process 1 of a container, which has no default action."""
    received: list[int] = []

    def end(number: int, _: object) -> None:
        stop.set()
        received.append(EX_SIGINT if number == signal.SIGINT else EX_SIGTERM)
        raise _Signalled

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise Misconfigured(f"--manifest {path} cannot be read: give manifest.json or the output of sha256sum") from exc


def _say(message: str) -> None:
    print(f"fetch: {message}", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _parallel(text: str) -> int:
    number = _positive(text)
    if number > MAX_PARALLEL:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_PARALLEL}: more connections do not make it faster")
    return number
