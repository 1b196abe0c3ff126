"""values.yaml with its comments -> keys with their documentation. Pure.

The comment directly above a key is its documentation. A line `@schema {…}` in it, in YAML's flow style, narrows what
the default's type says; it may take the place of the type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "@schema "
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


class ValuesError(Exception):
    """values.yaml cannot be read as documentation; the message names the line and the fault."""


@dataclass(frozen=True)
class Key:
    """One key of values.yaml."""

    path: str
    """With dots: `gateway.image.digest`."""
    default: Any
    doc: str
    """One paragraph; empty for a key that its neighbours explain."""
    schema: dict[str, Any]
    """What `@schema` says."""
    children: tuple[Key, ...] = field(default=())
    """Keys below it; none for a map whose keys are the user's."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    def walk(self) -> Iterator[Key]:
        """Go through this key and all below it, in the file's order."""
        yield self
        for child in self.children:
            yield from child.walk()


def read(text: str) -> tuple[Key, ...]:
    """Read the file. Raises ValuesError for a null without a type, a bad `@schema`, or a file that is no map."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValuesError("values.yaml must be a map")
    return _children(node, text.splitlines(), "")


def _children(node: yaml.MappingNode, lines: list[str], above: str) -> tuple[Key, ...]:
    return tuple(_key(name, value, lines, above) for name, value in node.value)


def _key(name: yaml.Node, value: yaml.Node, lines: list[str], above: str) -> Key:
    path = f"{above}{name.value}"
    line = name.start_mark.line
    doc, schema = _comment(lines, line, path)
    default = yaml.safe_load(yaml.serialize(value))
    # A map on one line is one value, as `{cpu: 1}` is; a map over several lines is documented key by key.
    nested = isinstance(value, yaml.MappingNode) and value.value and not value.flow_style and "$ref" not in schema
    children = _children(value, lines, f"{path}.") if nested and isinstance(value, yaml.MappingNode) else ()
    if default is None and "type" not in schema:
        raise ValuesError(f"line {line + 1}: {path} is null, so its type must stand in @schema")
    return Key(path, default, doc, schema, children)


def _comment(lines: list[str], line: int, path: str) -> tuple[str, dict[str, Any]]:
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().removeprefix("#").strip())
    marks = [text.removeprefix(MARK) for text in found if text.startswith(MARK)]
    schema: dict[str, Any] = {}
    for mark in marks:
        try:
            schema |= yaml.safe_load(mark)
        except (yaml.YAMLError, TypeError) as exc:
            raise ValuesError(f"line {line + 1}: the @schema of {path} is no map in flow style: {mark}") from exc
    return " ".join(text for text in found if not text.startswith(MARK)), schema
