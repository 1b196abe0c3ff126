"""`python -m gateway keys create|list|revoke`: the command line over the key file. It holds no rules of its own.

Only a new key goes to standard output, so that `KEY=$(python -m gateway keys create …)` works; all explanations go to
standard error. Exit codes: 0 done, 1 refused (the text says what to do), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import sys
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from gateway.address import parse_networks
from gateway.key_format import COUNTS, render_time
from gateway.key_ring import CachePolicy, Priority
from gateway.keys import Key, KeyFileError, hash_secret, new_secret, read_ring, update, utc_now

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from ipaddress import IPv4Network, IPv6Network

FILE_VARIABLE = "GATEWAY_KEYS_FILE"

_ID_BYTES = 6
"""48 random bits: ids only have to differ within a file, and `update` refuses a pair that does not."""

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([hdw])")

_COLUMNS = ("id", "tenant", "name", "created", "expires", "cidrs")


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `keys` to the command line; the parsed arguments carry `run` as `args.run`."""
    parser = subparsers.add_parser(
        "keys",
        help="create, list and revoke API keys",
        description="Create, list and revoke API keys. A running gateway sees each change within two seconds.",
    )
    parser.set_defaults(run=run)
    commands = parser.add_subparsers(dest="keys_command", required=True, metavar="COMMAND")
    file_option = argparse.ArgumentParser(add_help=False)
    file_option.add_argument(
        "--file", type=Path, metavar="PATH", help=f"the key file (default: the environment's {FILE_VARIABLE})"
    )

    create = commands.add_parser(
        "create",
        parents=[file_option],
        help="make a key and print it, once",
        description="Make a key and print it to standard output, once: the file keeps only its hash. "
        "A missing file is made, with mode 0600.",
    )
    create.add_argument("--tenant", required=True, help="whose key it is; tenants never share cached answers")
    create.add_argument("--name", default="", help="a label for people, shown by `list`")
    create.add_argument(
        "--cidr",
        type=_cidr,
        action="extend",
        nargs="+",
        default=[],
        metavar="CIDR",
        help="a network that the key may be used from, like 10.0.0.0/8; may be repeated (default: anywhere)",
    )
    create.add_argument(
        "--expires-in",
        type=duration,
        metavar="TIME",
        help="how long it is valid, in hours, days or weeks: 12h, 90d, 52w (default: until it is revoked)",
    )
    create.add_argument(
        "--cache",
        choices=get_args(CachePolicy),
        help="which of its answers are kept (default: as the gateway's settings)",
    )
    create.add_argument(
        "--priority",
        choices=get_args(Priority),
        default="default",
        help="the class in which its requests wait for an engine (default: %(default)s)",
    )
    create.add_argument(
        "--models",
        type=_models,
        default=(),
        metavar="NAME,NAME",
        help="the models that it may ask for, as /v1/models names them (default: all)",
    )
    create.add_argument(
        "--max-image-pixels",
        type=int,
        metavar="N",
        help="no picture of this key keeps more pixels, whatever its `detail` (default: as the gateway's settings)",
    )
    for name in COUNTS:
        create.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            metavar="N",
            help="its limit (default: as the gateway's settings; without any, none)",
        )

    listing = commands.add_parser(
        "list", parents=[file_option], help="show the keys, without secrets", description="Show the keys, never hashes."
    )
    listing.add_argument("--json", action="store_true", help="as JSON, for scripts")

    revoke = commands.add_parser(
        "revoke",
        parents=[file_option],
        help="take a key out of the file",
        description="Take a key out of the file. Every gateway that reads the file refuses it within two seconds.",
    )
    revoke.add_argument("id", metavar="ID", help="the key's id, as `list` shows it (k_...), not the key itself")


def run(args: argparse.Namespace, *, now: Callable[[], datetime] = utc_now) -> int:
    """Do what the arguments say and return the exit code; what went wrong is printed, not raised."""
    path = args.file or Path(os.environ.get(FILE_VARIABLE, "").strip() or ".")
    if path == Path():
        print(f"which key file? Give --file PATH or set {FILE_VARIABLE}", file=sys.stderr)
        return 2
    try:
        match args.keys_command:
            case "create":
                return _create(path, args, now().replace(microsecond=0))
            case "list":
                return _list(path, as_json=args.json, now=now())
            case _:
                return _revoke(path, args.id)
    except KeyFileError as exc:
        print(exc, file=sys.stderr)
        return 1


def _create(path: Path, args: argparse.Namespace, now: datetime) -> int:
    secret = new_secret()
    key = Key(
        id=f"k_{secrets.token_hex(_ID_BYTES)}",
        tenant=args.tenant,
        sha256=hash_secret(secret),
        created=now,
        networks=tuple(args.cidr),
        expires=now + args.expires_in if args.expires_in else None,
        name=args.name,
        cache_policy=args.cache,
        priority=args.priority,
        models=args.models,
        **{name: getattr(args, name) for name in COUNTS},
        max_image_pixels=args.max_image_pixels,
    )
    update(path, lambda keys: [*keys, key])
    until = f", valid until {render_time(key.expires)}" if key.expires else ""
    print(
        f"key {key.id} of tenant {key.tenant} is in {path}{until}. "
        "This is the only time that the key itself is shown; the file holds its hash:",
        file=sys.stderr,
        flush=True,
    )
    # After the file is safely written: a key that was shown must work.
    print(secret)
    return 0


def _list(path: Path, *, as_json: bool, now: datetime) -> int:
    keys = read_ring(path).keys
    if as_json:
        print(json.dumps({"keys": [_public(key, now) for key in keys]}, indent=2, ensure_ascii=False))
        return 0
    rows = [_COLUMNS, *(_row(key, now) for key in keys)]
    widths = [max(_width(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


def _revoke(path: Path, key_id: str) -> int:
    def without(keys: list[Key]) -> list[Key]:
        kept = [key for key in keys if key.id != key_id]
        if len(kept) == len(keys):
            # The id is not repeated: it may be a key, given by mistake.
            command = f"python -m gateway keys list --file {shlex.quote(str(path))}"
            raise KeyFileError(f"no key in {path} has this id: `{command}` shows the ids")
        return kept

    # Not `update` alone: it would make a missing file, and revoking must not hide that the path is wrong.
    read_ring(path)
    left = update(path, without)
    print(f"key {key_id} is revoked; {len(left)} left in {path}", file=sys.stderr)
    return 0


def _public(key: Key, now: datetime) -> dict[str, object]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "created": render_time(key.created),
        "expires": render_time(key.expires) if key.expires else None,
        "expired": key.is_expired(now),
        "cidrs": [str(network) for network in key.networks],
        "models": list(key.models),
    }


def _row(key: Key, now: datetime) -> Sequence[str]:
    expires = render_time(key.expires) if key.expires else "never"
    return (
        key.id,
        key.tenant,
        key.name or "-",
        render_time(key.created),
        expires + (" (expired)" if key.is_expired(now) else ""),
        ",".join(str(network) for network in key.networks) or "anywhere",
    )


def _width(text: str) -> int:
    """Columns on a terminal: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _cidr(text: str) -> IPv4Network | IPv6Network:
    try:
        return parse_networks([text])[0]
    except ValueError as exc:
        # argparse would replace a ValueError's text by "invalid value".
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _models(text: str) -> tuple[str, ...]:
    models = tuple(name.strip() for name in text.split(","))
    if not all(models):
        raise argparse.ArgumentTypeError(f"{text!r} must be names with a comma between them")
    return models


def duration(text: str) -> timedelta:
    """A time span: hours, days or weeks, such as 12h, 90d, 52w; for argparse."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write a number with h, d or w, like 90d")
    return int(match[1]) * _UNITS[match[2]]
