"""What a release is called and what its notes say: `python3 .github/scripts/release_plan.py version | notes`.

A tag vX.Y.Z releases X.Y.Z. Every commit of main releases X.Y.Z-main.N, where X.Y.Z is the next version, as in
pyproject.toml, and N the run's number: a SemVer that sorts before X.Y.Z and after the commits before it, so one version
names images, chart and deployment.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAG = re.compile(r"refs/tags/v(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)")
SECTION = re.compile(r"^## \[(?P<name>[^\]]+)\].*$", re.MULTILINE)


class ReleaseError(Exception):
    """This cannot be released; the message says what to do."""


def version(ref: str, run_number: str, next_version: str) -> str:
    """Name the release of a ref. Raises ReleaseError."""
    if tag := TAG.fullmatch(ref):
        name = tag[1]
        if name.partition("-")[0] != next_version:
            raise ReleaseError(f"tag v{name} and version {next_version} in pyproject.toml differ: change one of them")
        return name
    if ref == "refs/heads/main" and run_number.isdecimal():
        return f"{next_version}-main.{run_number}"
    raise ReleaseError(f"{ref} is neither main nor a tag vX.Y.Z")


def notes(changelog: str, name: str) -> str:
    """Return a version's section of the changelog. Raises ReleaseError when there is none, or nothing in it."""
    headings = list(SECTION.finditer(changelog))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading["name"] == name:
            text = changelog[heading.end() : following.start() if following else None].strip()
            if text:
                return text + "\n"
    raise ReleaseError(f"CHANGELOG.md has no section [{name}] with anything in it: write it before you tag")


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ, root: Path = Path()) -> int:
    """Print the version or the notes; 1 when this cannot be released."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("version", "notes"))
    asked = parser.parse_args(argv)
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        name = version(environ.get("GITHUB_REF", ""), environ.get("GITHUB_RUN_NUMBER", ""), project["version"])
        if asked.command == "notes":
            print(notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), name), end="")
            return 0
    except ReleaseError as exc:
        print(f"release: {exc}", file=sys.stderr)
        return 1
    print(name)
    if output := environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a", encoding="utf-8") as file:
            file.write(f"version={name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
