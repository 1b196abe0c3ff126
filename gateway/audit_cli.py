"""`python -m gateway audit query`: find records in audit files or a Redis stream. Never asks the running gateway."""

from __future__ import annotations

import os
import sys
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.audit_stream import lines_of
from gateway.keys_cli import duration
from gateway.redis_link import LinkError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

FILE_VARIABLE = "GATEWAY_AUDIT_FILE"
STREAM_VARIABLE = "GATEWAY_AUDIT_STREAM"
URL_VARIABLE = "GATEWAY_REDIS_URL"
TIMES = "12h, 7d, 2w or 2026-01-31T08:00"
CLOCKS_DIFFER_S = 300.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`audit query`."""
    parser = commands.add_parser("audit", help="look into the audit records")
    queries = parser.add_subparsers(dest="audit_command", required=True, metavar="COMMAND")
    query = queries.add_parser(
        "query",
        help="print records, one JSON line each, oldest first",
        description="Print the records that fit, one JSON line each, oldest first; rotated files are read too. "
        f"Without FILE or --stream, those of {FILE_VARIABLE} or {STREAM_VARIABLE}.",
    )
    where = query.add_mutually_exclusive_group()
    where.add_argument("file", type=Path, nargs="?", metavar="FILE", help=f"the file that {FILE_VARIABLE} names")
    where.add_argument("--stream", metavar="NAME", help=f"the stream that {STREAM_VARIABLE} names, at {URL_VARIABLE}")
    query.add_argument("--since", type=moment, metavar="TIME", help=f"not older than {TIMES}")
    query.add_argument("--until", type=moment, metavar="TIME", help="older than that, written likewise")
    query.add_argument("--tenant", help="of this tenant")
    query.add_argument("--key", metavar="ID", help="asked with this key (its id, k_…)")
    query.add_argument("--request", metavar="ID", help="this request (req_…)")
    query.add_argument("--slowest", type=int, metavar="N", help="the N slowest, slowest first")
    query.add_argument("--last", type=int, metavar="N", help="the last N")


def moment(text: str) -> timedelta | datetime:
    """A time as `12h` ago or as a date (UTC where it says nothing else); for argparse."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        return duration(text)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def run(args: argparse.Namespace, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """Print; exit code 0, 1 when there are no such records to read, 2 when it is not said where."""
    since, until = (
        given and (now() - given if isinstance(given, timedelta) else given).astimezone(UTC)
        for given in (args.since, args.until)
    )
    stream = args.stream or (not args.file and os.environ.get(STREAM_VARIABLE, "").strip())
    file = args.file or Path(os.environ.get(FILE_VARIABLE, "").strip())
    if stream:
        lines = _stream_lines(stream, since)
    elif file == Path():
        print(
            f"which records? Give FILE or --stream NAME, or set {FILE_VARIABLE} or {STREAM_VARIABLE}", file=sys.stderr
        )
        return 2
    elif not file.exists():
        print(f"{file} does not exist: give the file that {FILE_VARIABLE} names", file=sys.stderr)
        return 1
    else:
        lines = _file_lines(files_of(file))
    first, end = (since.isoformat() if since else "", until.isoformat() if until else "~")
    wanted = {"tenant": args.tenant, "key_id": args.key, "request_id": args.request}
    fitting = (
        record
        for record in records(lines)
        if first <= str(record.get("time", "")) < end
        and all(value is None or record.get(name) == value for name, value in wanted.items())
    )
    try:
        for record in chosen(fitting, args.slowest, args.last):
            print(orjson.dumps(record).decode())
    except (LinkError, ValueError) as exc:
        print(f"{URL_VARIABLE}: {exc}", file=sys.stderr)
        return 1
    return 0


def chosen(found: Iterable[dict[str, Any]], slowest: int | None, last: int | None) -> Iterable[dict[str, Any]]:
    """All of them, the slowest, or the last."""
    if slowest:
        return sorted(found, key=lambda record: -float(record.get("duration_ms") or 0))[:slowest]
    return deque(found, last) if last else found


def files_of(path: Path) -> list[Path]:
    """The file and its rotated predecessors, oldest first."""
    rotated = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit()]
    return [*sorted(rotated, key=lambda p: -int(p.suffix[1:])), path]


def records(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Every record; a line that was cut off (a crash, a full disk) is passed over."""
    for line in lines:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(record, dict):
            yield record


def _file_lines(files: Iterable[Path]) -> Iterator[bytes]:
    for file in files:
        with file.open("rb") as lines:
            yield from lines


def _stream_lines(stream: str, since: datetime | None) -> Iterator[bytes]:
    # Redis dates an entry by its own clock, somewhat after the record's: where to begin, not what to show.
    start_s = max(0.0, since.timestamp() - CLOCKS_DIFFER_S) if since else 0.0
    return lines_of(os.environ.get(URL_VARIABLE, "").strip(), stream, int(start_s * 1000))
