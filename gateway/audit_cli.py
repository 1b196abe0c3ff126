"""`python -m gateway audit query`: find records in audit files. Reads files only; never the running gateway."""

from __future__ import annotations

import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.keys_cli import duration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`audit query`."""
    parser = commands.add_parser("audit", help="look into the audit records")
    queries = parser.add_subparsers(dest="audit_command", required=True, metavar="COMMAND")
    query = queries.add_parser(
        "query",
        help="print records, one JSON line each, oldest first",
        description="Print the records that fit, one JSON line each, oldest first; rotated files are read too.",
    )
    query.add_argument("file", type=Path, help="the file that GATEWAY_AUDIT_FILE names")
    query.add_argument("--since", type=duration, metavar="TIME", help="not older than 12h, 7d, 2w")
    query.add_argument("--tenant", help="of this tenant")
    query.add_argument("--key", metavar="ID", help="asked with this key (its id, k_…)")
    query.add_argument("--request", metavar="ID", help="this request (req_…)")
    query.add_argument("--slowest", type=int, metavar="N", help="the N slowest, slowest first")
    query.add_argument("--last", type=int, metavar="N", help="the last N")


def run(args: argparse.Namespace, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """Print; exit code 0, or 1 when there is no such file."""
    if not args.file.exists():
        print(f"{args.file} does not exist: give the file that GATEWAY_AUDIT_FILE names", file=sys.stderr)
        return 1
    since = (now() - args.since).isoformat() if args.since else ""
    wanted = {"tenant": args.tenant, "key_id": args.key, "request_id": args.request}
    found = (
        record
        for record in records(files_of(args.file))
        if str(record.get("time", "")) >= since
        and all(value is None or record.get(name) == value for name, value in wanted.items())
    )
    for record in chosen(found, args.slowest, args.last):
        print(orjson.dumps(record).decode())
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


def records(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Every record; a line that was cut off (a crash, a full disk) is passed over."""
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                try:
                    yield orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
