"""The text of a key file ↔ the keys in it. Strict: every fault is told at once, and nothing is guessed.

No message of this module holds a key or a hash, not even when somebody put one into the wrong field.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from gateway.address import Networks, parse_networks
from gateway.key_ring import TENANT, CachePolicy, Key, KeyFileError, KeyRing, Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ID = re.compile(r"(?!sk-)[A-Za-z0-9_-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELD_NAME = re.compile(r"[a-z0-9_]{1,32}")
_MIN_IMAGE_PIXELS = 32 * 32
"""One visual token of Qwen3-VL."""
_MAX_NAME_CHARS = 128
_LOOKS_LIKE_CIDR = re.compile(r"[0-9a-fA-F.:/]{1,49}")
"""Safe to repeat in a message: too short for a SHA-256, and no key fits."""

COUNTS = ("max_images", "requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_day")
"""A key's limits that are plain numbers."""


def parse_ring(text: str) -> KeyRing:
    """Read the text of a key file. No keys at all is a valid ring: the last one may have been revoked.

    Raises:
        KeyFileError: listing every fault, each with the key's id and the field.

    """
    try:
        document = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as exc:
        # `from None`: the exception holds the whole file, and some tools print what exceptions hold.
        raise KeyFileError(f"not JSON: {exc.msg} at line {exc.lineno} column {exc.colno}") from None
    except RecursionError:
        raise KeyFileError("not a key file: nested too deeply") from None
    if not isinstance(document, dict) or set(document) != {"keys"} or not isinstance(document["keys"], list):
        raise KeyFileError('not a key file: it must hold {"keys": [...]} and nothing else')
    faults: list[str] = []
    keys: dict[str, Key] = {}
    hash_owners: dict[str, str] = {}
    for number, item in enumerate(document["keys"], start=1):
        key = _parse_key(number, item, faults)
        if key is None:
            continue
        if keys.setdefault(key.id, key) is not key:
            faults.append(f"key {key.id}: id is used twice")
        elif (owner := hash_owners.setdefault(key.sha256, key.id)) != key.id:
            faults.append(f"key {key.id}: sha256 is the same as that of key {owner}")
    if faults:
        raise KeyFileError("; ".join(faults))
    return KeyRing(keys.values())


def render_ring(keys: Iterable[Key]) -> str:
    """Return the text of a key file, which `parse_ring` reads back to equal keys."""
    return json.dumps({"keys": [_render_key(key) for key in keys]}, indent=2, ensure_ascii=False) + "\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            # JSON readers disagree on which one counts: two tools would see two different keys.
            raise KeyFileError(f"{_shown(name)} is given twice in one object")
        members[name] = value
    return members


def _parse_key(number: int, item: object, faults: list[str]) -> Key | None:
    if not isinstance(item, dict):
        faults.append(f"key #{number}: must be an object")
        return None
    found = [f"{_shown(name)} is not a field of a key" for name in item if name not in _FIELDS]
    values: dict[str, Any] = {}
    for name, (attribute, required, parse) in _FIELDS.items():
        value = item.get(name)
        if value is None:
            found += [f"{name} is missing"] if required else []
            continue
        try:
            values[attribute] = parse(value)
        except ValueError as exc:
            found.append(f"{name} {exc}")
    faults += [f"key {values.get('id', f'#{number}')}: {fault}" for fault in found]
    return None if found else Key(**values)


def _shown(name: str) -> str:
    return name if _FIELD_NAME.fullmatch(name) else "a name that is not repeated here"


def _matching(pattern: re.Pattern[str], wanted: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"must be {wanted}")
        return value

    return parse


def _parse_time(value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value if isinstance(value, str) else "")
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a time with its zone, like 2026-01-31T12:00:00Z")


def _parse_cidrs(value: object) -> Networks:
    if not isinstance(value, list) or not value:
        # An empty list could mean nobody or everybody; a guess would be wrong half of the time.
        raise ValueError('must be a list like ["10.0.0.0/8"]; leave it out to allow every address')
    networks: Networks = ()
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str) or not _LOOKS_LIKE_CIDR.fullmatch(item):
            raise ValueError(f"item {number} is not an IP network")
        networks += parse_networks([item])
    return networks


def _parse_models(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        # As for cidrs: an empty list could mean none or all.
        raise ValueError('must be a list like ["qwen3-vl"]; leave it out to allow every model')
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str) or not item or not item.isprintable() or len(item) > _MAX_NAME_CHARS:
            raise ValueError(f"item {number} must be 1 to {_MAX_NAME_CHARS} printable characters")
    return tuple(value)


def _parse_name(value: object) -> str:
    # Printable, so that a label cannot forge a log line or a row of `keys list`.
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_NAME_CHARS:
        raise ValueError(f"must be at most {_MAX_NAME_CHARS} printable characters")
    return value


def _parse_pixels(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < _MIN_IMAGE_PIXELS:
        raise ValueError(f"must be a whole number of at least {_MIN_IMAGE_PIXELS} pixels")
    return value


def _parse_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("must be a whole number of at least 1")
    return value


def _one_of(choices: tuple[str, ...]) -> Callable[[object], object]:
    def parse(value: object) -> object:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return parse


_FIELDS: dict[str, tuple[str, bool, Callable[[object], object]]] = {
    # Name in the file: attribute of Key, whether it is required, parser. A parser's ValueError never repeats a value
    # that may be secret.
    "id": ("id", True, _matching(_ID, "up to 64 letters, digits, _ or - (and no key, sk-…)")),
    "tenant": ("tenant", True, _matching(TENANT, "up to 63 letters, digits, . _ or -, a letter or digit first")),
    "sha256": ("sha256", True, _matching(_SHA256, "64 lower-case hex digits")),
    "created": ("created", True, _parse_time),
    "cidrs": ("networks", False, _parse_cidrs),
    "expires": ("expires", False, _parse_time),
    "name": ("name", False, _parse_name),
    "cache": ("cache_policy", False, _one_of(get_args(CachePolicy))),
    "priority": ("priority", False, _one_of(get_args(Priority))),
    "models": ("models", False, _parse_models),
    **{name: (name, False, _parse_count) for name in COUNTS},
    "max_image_pixels": ("max_image_pixels", False, _parse_pixels),
}


def _render_key(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "sha256": key.sha256,
        "created": render_time(key.created),
        "cidrs": [str(network) for network in key.networks] or None,
        "expires": render_time(key.expires) if key.expires else None,
        "name": key.name or None,
        "cache": key.cache_policy,
        "priority": None if key.priority == "default" else key.priority,
        "models": list(key.models) or None,
        **{name: getattr(key, name) for name in COUNTS},
        "max_image_pixels": key.max_image_pixels,
    }


def render_time(time: datetime) -> str:
    """Return an aware time as the key file writes it, in UTC with a `Z`."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
