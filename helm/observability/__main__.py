"""`python -m helm.observability --write | --check`: the generated dashboards, in both languages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from helm.observability.boards import BOARDS
from helm.observability.grafana import board_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helm.observability.model import Language

FILES = Path(__file__).resolve().parents[1] / "qwen3-vl" / "files"
FOLDERS: dict[Language, str] = {"en": "dashboards", "zh": "dashboards-zh"}


def generated(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file below `folder` and what belongs into it."""
    for language, name in FOLDERS.items():
        for board in BOARDS:
            yield folder / name / f"{board.uid}.json", board_json(board, language)


def main(argv: list[str] | None = None, folder: Path = FILES) -> int:
    """Write, or say what is out of step; exit code 1 then."""
    parser = argparse.ArgumentParser(prog="python -m helm.observability", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the dashboards")
    what.add_argument("--check", action="store_true", help="fail if a file is out of step, or belongs to no board")
    args = parser.parse_args(argv)
    wanted = dict(generated(folder))
    stray = {path for name in FOLDERS.values() for path in (folder / name).glob("*.json")} - set(wanted)
    if args.write:
        for path in stray:
            path.unlink()
        for path, text in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    off = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in sorted([*off, *stray]):
        print(f"{path}: out of step with helm/observability: run `make generate`", file=sys.stderr)
    return 1 if off or stray else 0


if __name__ == "__main__":
    sys.exit(main())
