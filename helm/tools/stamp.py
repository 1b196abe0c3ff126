"""`python -m helm.tools.stamp`: write a release's images into the chart that is about to be packaged.

The repository's chart names placeholders, as it cannot know your registry; a released one can. Standard library only.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IMAGE = re.compile(r"(?P<repository>[a-z0-9][-a-z0-9._:/]*)@(?P<digest>sha256:[0-9a-f]{64})")


class StampError(Exception):
    """What was asked for cannot be written; the message says why."""


@dataclass(frozen=True)
class Image:
    """An image that was pushed."""

    repository: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Image:
        """Read `REPOSITORY@sha256:…`. Raises StampError."""
        found = IMAGE.fullmatch(text)
        if found is None:
            raise StampError(f"{text!r} is no image by digest: give REPOSITORY@sha256:…")
        return cls(found["repository"], found["digest"])


def stamp(values: str, version: str, images: Mapping[str, Image]) -> str:
    """Return values.yaml with these images as its defaults, by section (`gateway`, `engine`). Raises StampError."""
    for section, image in images.items():
        fields = {"repository": image.repository, "tag": version, "digest": image.digest}
        pattern = rf"^{section}:\n" + "".join(rf".*?^    {name}: (?P<{name}>[^\n]*)" for name in fields)
        found = re.search(pattern, values, re.MULTILINE | re.DOTALL)
        if found is None:
            raise StampError(f"values.yaml has no {section}.image")
        for name in reversed(fields):
            start, end = found.span(name)
            values = f'{values[:start]}"{fields[name]}"{values[end:]}'
    return values


def main(argv: Sequence[str] | None = None) -> int:
    """Change values.yaml of a chart in place."""
    parser = argparse.ArgumentParser(prog="python -m helm.tools.stamp", description=__doc__)
    parser.add_argument("--chart", type=Path, required=True, help="folder of the chart")
    parser.add_argument("--version", required=True, help="of the release; the images' tag")
    parser.add_argument("--gateway", required=True, help="REPOSITORY@sha256:…")
    parser.add_argument("--engine", required=True, help="REPOSITORY@sha256:…")
    asked = parser.parse_args(argv)
    file = asked.chart / "values.yaml"
    try:
        images = {"gateway": Image.parse(asked.gateway), "engine": Image.parse(asked.engine)}
        file.write_text(stamp(file.read_text(encoding="utf-8"), asked.version, images), encoding="utf-8")
    except (OSError, StampError) as exc:
        print(f"stamp: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
