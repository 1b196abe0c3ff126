"""`python -m gateway cache stats|purge`: what is kept in Redis, by tenant, and getting rid of it everywhere.

Speaks to Redis only, never to a gateway: those see a purge within two seconds (`generations.py`). A purge has returned
when no process gives anything of before; if it fails, nothing is certain and it is to be run again.
Exit codes: 0 done, 1 failed or not confirmed (the text says what to do), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.cache import HEAD_BYTES, made_at
from gateway.generations import EFFECTIVE_S, HITS, begin_generation
from gateway.key_ring import TENANT
from gateway.redis_link import BlockingLink, LinkError
from gateway.stores import ANSWERS, PICTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URL_VARIABLE = "GATEWAY_REDIS_URL"
TIMEOUT_S = 10.0
"""For a person who waits, and for a Redis that has a million names to walk through."""
BATCH = 1000
WITHOUT_REDIS = f"""{URL_VARIABLE} is not set. Without Redis each gateway keeps answers and pictures in its own memory:
restart it to purge (`kubectl rollout restart`, one replica after the other, loses no request), and see
gateway_cache_bytes and gateway_image_cache_bytes on its metrics port for how much there is."""
COLUMNS = ("tenant", "answers", "bytes", "hits", "oldest", "pictures", "bytes")


@dataclass(slots=True)
class Kept:
    """What is kept for a tenant, in Redis."""

    answers: int = 0
    answer_bytes: int = 0
    hits: int = 0
    """Answers given from what was kept, since the last purge."""
    oldest_s: float | None = None
    """When the oldest answer was made, seconds since the epoch."""
    pictures: int = 0
    picture_bytes: int = 0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`cache stats` and `cache purge`."""
    parser = commands.add_parser(
        "cache",
        help="look into the shared cache, purge it",
        description=f"Look into the cache that gateways share in Redis ({URL_VARIABLE}), or purge it.",
    )
    actions = parser.add_subparsers(dest="cache_command", required=True, metavar="COMMAND")
    stats = actions.add_parser(
        "stats",
        help="what is kept, by tenant",
        description="Show what is kept in Redis: answers and fetched pictures, by tenant.",
    )
    _whose(stats, required=False)
    purge = actions.add_parser(
        "purge",
        help="forget what is kept",
        description="Forget answers and fetched pictures, in Redis and in the memory of every gateway that uses it. "
        f"Takes {EFFECTIVE_S:g} seconds; when it has returned, nothing kept before is given any more.",
    )
    _whose(purge, required=True)
    purge.add_argument("--yes", action="store_true", help="do not ask (it asks only at a terminal)")


def _whose(parser: argparse.ArgumentParser, *, required: bool) -> None:
    whose = parser.add_mutually_exclusive_group(required=required)
    whose.add_argument("--tenant", type=_tenant, help="of this tenant")
    whose.add_argument("--all", action="store_true", help="of every tenant" + ("" if required else " (the default)"))
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")


def _tenant(text: str) -> str:
    if not TENANT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no tenant's name")
    return text


def run(args: argparse.Namespace, *, now: Callable[[], float] = time.time) -> int:
    """Do what the arguments say and return the exit code; what went wrong is printed, not raised."""
    url = os.environ.get(URL_VARIABLE, "").strip()
    if not url:
        print(WITHOUT_REDIS, file=sys.stderr)
        return 1
    try:
        link = BlockingLink(url, timeout_s=TIMEOUT_S)
    except ValueError as exc:
        print(f"{URL_VARIABLE}: {exc}", file=sys.stderr)
        return 1
    try:
        return _stats(link, args, now()) if args.cache_command == "stats" else _purge(link, args)
    except LinkError as exc:
        after = "; run it again: nothing is certain now" if args.cache_command == "purge" else ""
        print(f"{exc}{after}", file=sys.stderr)
        return 1
    finally:
        link.close()


def _stats(link: BlockingLink, args: argparse.Namespace, now_s: float) -> int:
    kept = link.call("stats", lambda client: found(client, args.tenant))
    if args.json:
        tenants = [{"tenant": tenant, **_public(one, now_s)} for tenant, one in kept.items()]
        print(json.dumps({"tenants": tenants}, indent=2))
        return 0
    rows = [COLUMNS, *(_row(tenant, one, now_s) for tenant, one in kept.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
    return 0


def _purge(link: BlockingLink, args: argparse.Namespace) -> int:
    if sys.stdin.isatty() and not args.yes:
        whose = f"tenant {args.tenant}" if args.tenant else "EVERY tenant"
        print(
            f"Forget all answers and pictures of {whose} at {link.where}? [y/N] ", end="", file=sys.stderr, flush=True
        )
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            print("nothing was purged", file=sys.stderr)
            return 1
    begin_generation(link, args.tenant)
    # Only now does every process know: what one of them wrote in between under an old name is removed with the rest.
    time.sleep(EFFECTIVE_S)
    removed = link.call("purge", lambda client: _remove(client, args.tenant))
    if args.json:
        print(json.dumps({"tenant": args.tenant, "removed_entries": removed}))
    else:
        print(
            f"purged {args.tenant or 'everybody'}: {removed} entries removed from Redis, none is given by any gateway"
        )
    return 0


def found(client: Any, tenant: str | None) -> dict[str, Kept]:  # noqa: ANN401 - see RedisLink
    """What is kept for the tenant, or for each that has anything, in the order of their names."""
    kept: dict[str, Kept] = {tenant: Kept()} if tenant else {}
    for name, count in client.hgetall(HITS).items():
        if tenant in {None, name.decode()}:
            kept.setdefault(name.decode(), Kept()).hits = int(count)
    for space in (ANSWERS, PICTURES):
        for names in _names(client, space, tenant):
            with client.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.strlen(name).getrange(name, 0, HEAD_BYTES - 1)
                replies = pipeline.execute()
            for name, size, head in zip(names, replies[::2], replies[1::2], strict=True):
                owner = name[len(space) :].partition(b":")[0].decode()
                if size:  # Else it ended just now.
                    _count(kept.setdefault(owner, Kept()), name, size, head)
    return dict(sorted(kept.items()))


def _count(kept: Kept, name: bytes, size: int, head: bytes) -> None:
    if name.startswith(ANSWERS.encode()):
        kept.answers += 1
        kept.answer_bytes += size
        made_s = made_at(head)
        if made_s is not None:
            kept.oldest_s = min(made_s, kept.oldest_s or made_s)
    else:
        # A picture is two entries: what its server said, and its bytes under a name below.
        kept.pictures += b"/" in name
        kept.picture_bytes += size


def _names(client: Any, space: str, tenant: str | None) -> Iterator[list[bytes]]:  # noqa: ANN401 - see RedisLink
    cursor = None
    while cursor != 0:
        cursor, names = client.scan(cursor or 0, match=f"{space}{tenant or '*'}:*", count=BATCH)
        if names:
            yield names


def _remove(client: Any, tenant: str | None) -> int:  # noqa: ANN401 - see RedisLink
    return sum(client.unlink(*names) for space in (ANSWERS, PICTURES) for names in _names(client, space, tenant))


def _public(kept: Kept, now_s: float) -> dict[str, object]:
    return {
        "answers": kept.answers,
        "answer_bytes": kept.answer_bytes,
        "hits": kept.hits,
        "oldest_answer_s": None if kept.oldest_s is None else max(0, round(now_s - kept.oldest_s)),
        "pictures": kept.pictures,
        "picture_bytes": kept.picture_bytes,
    }


def _row(tenant: str, kept: Kept, now_s: float) -> tuple[str, ...]:
    oldest = "-" if kept.oldest_s is None else f"{max(0, now_s - kept.oldest_s):.0f} s"
    numbers = (kept.answers, kept.answer_bytes, kept.hits, oldest, kept.pictures, kept.picture_bytes)
    return (tenant, *(str(number) for number in numbers))
