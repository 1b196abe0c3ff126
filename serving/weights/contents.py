"""Whether a file is what its name promises: safetensors with a sound header, JSON that parses, text that is UTF-8.

A checksum says that the bytes are the publisher's; this, that a parser in the engine will not be led astray by them.
The rules for safetensors are those of the format's description and of its own reader:
https://github.com/huggingface/safetensors#format (header length, MAX_HEADER_SIZE, offsets without holes or overlaps).
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from serving.weights.errors import Refused
from serving.weights.names import Kind, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # safetensors' own MAX_HEADER_SIZE
MAX_TEXT_BYTES = 256 * 2**20  # a tokenizer.json is 11 MB; more than this is no text that serving needs

# Bits of one value; a type that is not here is checked for its offsets only.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip


def check(path: Path, name: str) -> None:
    """Raise Refused when the file is not what `name` promises; `path` is where it stands."""
    kind = judge(name).kind
    if kind is Kind.WEIGHTS:
        tensors(path, name)
    elif path.stat().st_size > MAX_TEXT_BYTES:
        raise Refused(f"{name} has {path.stat().st_size:,} bytes, far more than a text of a checkpoint has")
    else:
        _text(path, name, is_json=kind is Kind.JSON)


def _text(path: Path, name: str, *, is_json: bool) -> Any:  # noqa: ANN401  # JSON is any of its types
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if is_json else text
    except (ValueError, RecursionError) as exc:
        raise Refused(f"{name} is no {'JSON' if is_json else 'UTF-8 text'}: the file at the source is broken") from exc


def check_index(folder: Path, names: Iterable[str]) -> None:
    """Raise Refused when an index names a shard that is missing, or a tensor that its shard does not have."""
    present = set(names)
    for index in sorted(name for name in present if name.endswith(".safetensors.index.json")):
        table = _text(folder / index, index, is_json=True)
        weight_map = table.get("weight_map") if isinstance(table, dict) else None
        if not isinstance(weight_map, dict):
            raise Refused(f"{index} has no weight_map: it is no index of safetensors")
        shards: dict[str, set[str]] = {}
        for tensor, shard in weight_map.items():
            shards.setdefault(str(shard), set()).add(tensor)
        for shard, wanted in sorted(shards.items()):
            if shard not in present:
                raise Refused(f"{index} names {shard!r}, which was not fetched: the source is incomplete")
            if missing := wanted - tensors(folder / shard, shard):
                raise Refused(f"{shard} lacks {len(missing)} tensors that {index} promises, such as {min(missing)}")


def tensors(path: Path, name: str) -> set[str]:
    """Names of the tensors of a safetensors file. Raises Refused when its header is not sound."""

    def broken(what: str) -> Refused:
        return Refused(f"{name} is no sound safetensors file: {what}. Do not use it; publish it again")

    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or not 2 <= length <= MAX_HEADER_BYTES or LENGTH_BYTES + length > size:  # noqa: PLR2004  # `{}`
            raise broken(f"a header of {length:,} bytes in a file of {size:,}")
        raw = file.read(length)
    if not raw.startswith(b"{"):
        raise broken("its header is no JSON object")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as exc:
        raise broken("its header is no JSON, or names a tensor twice") from exc
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise broken("__metadata__ is not made of texts")
    _check_offsets(header, size - LENGTH_BYTES - length, broken)
    return set(header)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands there twice")
    return table


def _check_offsets(header: dict[str, Any], data_bytes: int, broken: Callable[[str], Refused]) -> None:
    spans: list[tuple[int, int]] = []
    for tensor, info in header.items():
        if not isinstance(info, dict):
            raise broken(f"{tensor} is not described")
        dtype, shape, offsets = info.get("dtype"), _counts(info.get("shape")), _counts(info.get("data_offsets"))
        if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:  # noqa: PLR2004  # a pair
            raise broken(f"{tensor} has no dtype, shape or data_offsets")
        begin, end = offsets
        if not begin <= end <= data_bytes:
            raise broken(f"{tensor} lies outside the file")
        if dtype in _BITS and math.prod(shape) * _BITS[dtype] != (end - begin) * 8:
            raise broken(f"{tensor} has another size than its shape and dtype say")
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise broken("its tensors overlap, or leave a hole")
        position = end
    if position != data_bytes:
        raise broken("there are bytes after the last tensor")


def _counts(value: object) -> list[int] | None:
    """A list of whole numbers from 0 on, if that is what it is; `true` is none."""
    if isinstance(value, list) and all(type(item) is int and item >= 0 for item in value):
        return value
    return None
