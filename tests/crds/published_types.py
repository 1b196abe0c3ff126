"""Reads the TypeScript declarations of `@kubernetes-models`, made from the projects' own Go types: fields, which are needed, enums."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)";', re.MULTILINE)
INTERFACE = re.compile(r"^export interface \w+(?: extends ([\w, ]+))? \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
ALIAS = re.compile(r"^export (?:declare )?type \w+ =\s*(.*?);\n", re.DOTALL | re.MULTILINE)
FIELD = re.compile(r'^    "([^"]+)"(\??): (.*?);$(?=\n    "|\n*\Z)', re.DOTALL | re.MULTILINE)
LIST = re.compile(r"Array<(.*)>", re.DOTALL)
SCALARS = {"string": "string", "number": "integer", "boolean": "boolean"}


class Type:
    """One type as a declaration names it: what its text means depends on what the file imports."""

    def __init__(self, text: str, file: Path, modules: Path) -> None:
        self.text, self.file, self.modules = " ".join(text.split()), file, modules
        if (found := self._declared()) is not None:
            self.text, self.file = found

    def _declared(self) -> tuple[str, Path] | None:
        """What an imported name stands for: the text of an alias, or the file of an interface."""
        where = imports(self.file).get(self.text)
        if where is None:
            return None
        file = self.file.parent / where if where.startswith(".") else self.modules / where
        file = file.with_name(file.name.removesuffix(".js") + ".d.ts")
        source = COMMENT.sub("", file.read_text())
        if INTERFACE.search(source):
            return "interface", file
        alias = ALIAS.search(source)
        assert alias, f"{file}: neither an interface nor an alias"
        inner = Type(alias[1], file, self.modules)
        return inner.text, inner.file

    def item(self) -> Type:
        """What a list holds."""
        found = LIST.fullmatch(self.text)
        assert found, f"{self.file}: {self.text} is no list"
        return Type(found[1], self.file, self.modules)

    def choices(self) -> set[str]:
        """The values of an enum; empty for any other type."""
        return set(re.findall(r'"([^"]*)"', self.text)) if self.text.startswith('"') else set()

    def fields(self) -> dict[str, tuple[bool, Type]]:
        """Of an interface: its fields, and whether each is needed."""
        assert self.text == "interface", f"{self.file}: {self.text} has no fields"
        found = INTERFACE.search(COMMENT.sub("", self.file.read_text()))
        assert found
        body = "\n".join(line for line in found[2].splitlines() if line.strip())
        own = {name: (not mark, Type(text, self.file, self.modules)) for name, mark, text in FIELD.findall(body)}
        outer: dict[str, tuple[bool, Type]] = {}
        # Every object extends TypeMeta, of a package without declarations of its own: apiVersion and kind are among `own`.
        for name in set(filter(None, (found[1] or "").split(", "))) - {"TypeMeta"}:
            outer |= Type(name, self.file, self.modules).fields()
        return outer | own


@functools.cache
def imports(file: Path) -> dict[str, str]:
    """Imported name -> module."""
    return {name.strip(): where for names, where in IMPORT.findall(file.read_text()) for name in names.split(",")}


def differences(schema: dict[str, Any], published: Type, path: str = "spec") -> Iterator[str]:
    """Where a schema of ours takes what the published type does not have, or misses what it needs."""
    if "properties" in schema:
        fields = published.fields()
        needed = {name for name, (is_needed, _) in fields.items() if is_needed}
        if missed := needed - set(schema.get("required", [])):
            yield f"{path}: {', '.join(sorted(missed))} is needed, and ours takes it without"
        if more := set(schema.get("required", [])) - needed:
            yield f"{path}: ours needs {', '.join(sorted(more))}, which may be missing"
        for name, inner in schema["properties"].items():
            if name not in fields:
                yield f"{path}.{name} does not exist"
            else:
                yield from differences(inner, fields[name][1], f"{path}.{name}")
    elif "items" in schema:
        yield from differences(schema["items"], published.item(), f"{path}[]")
    elif choices := set(schema.get("enum", [])):
        if published.choices() and choices != published.choices():
            yield f"{path}: ours has {sorted(choices)}, published is {sorted(published.choices())}"
    elif isinstance(kind := schema.get("type"), str) and published.text in SCALARS and SCALARS[published.text] != kind:
        yield f"{path}: ours is {kind}, published is {published.text}"
