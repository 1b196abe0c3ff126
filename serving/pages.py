"""A generated table between two markers of a document: printed, written there, or checked."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(module: str, table: Callable[[], str], markers: tuple[str, str], argv: Sequence[str] | None) -> int:
    """Run `python -m MODULE [--write FILE | --check FILE]`; 1 when the file has no markers or is out of step."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", type=Path, metavar="FILE", help="put the table between the file's markers")
    what.add_argument("--check", type=Path, metavar="FILE", help="fail if the file's table is out of step")
    asked = parser.parse_args(argv)
    path: Path | None = asked.write or asked.check
    if path is None:
        print(table(), end="")
        return 0
    begin, end = markers
    text = path.read_text(encoding="utf-8")
    between = re.compile(re.escape(begin) + r"\n.*?" + re.escape(end), re.DOTALL)
    wanted, places = between.subn(lambda _: f"{begin}\n\n{table()}\n{end}", text)
    if not places:
        print(f"{path} has no line {begin}", file=sys.stderr)
        return 1
    if asked.write:
        path.write_text(wanted, encoding="utf-8")
    elif wanted != text:
        print(f"{path} is out of step: run `python -m {module} --write {path}`", file=sys.stderr)
        return 1
    return 0
