"""What of CI a change needs, and whether CI may pass: `python3 .github/scripts/ci_plan.py changes | gate`.

`changes` says which areas a change touches. Whatever cannot be told is touched: it fails towards running more.
`gate` is the one job that branch protection requires. It takes success only; a job that was skipped counts only when
`changes` said that its area was untouched.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EVERYWHERE = re.compile(r"^(Makefile|pyproject\.toml|requirements/|\.github/(workflows/ci\.yml|scripts/ci_plan\.py))")
AREAS = {
    # Documents count as code: generated parts of them are checked.
    "code": re.compile(r"^(gateway|serving|loadtest|tests|docs|\.github/scripts)/|\.(py|md)$"),
    "chart": re.compile(r"^(helm|tests/chart|gateway/settings\.py|\.github/(environments|scripts))"),
    "cluster": re.compile(r"^(helm|gateway|serving|tests/cluster)/|^\.github/scripts/kind\.sh$"),
    "images": re.compile(r"^(gateway|serving|tests/containers)/|^tests/support/(containers|images)\.py$"),
    "host": re.compile(
        r"^(serving/(host|canary)|tests/host|\.github/scripts/delivery)/|^serving/(exchange|arguments)\.py$"
        r"|^gateway/(Dockerfile|serve\.py|drain\.py)|^tests/support/(containers|images)\.py$"
    ),
    "workflows": re.compile(r"^(\.github|tests/workflows|serving/host)/|\.sh$"),
}
NEEDS = {
    "checks": "code",
    "test": "code",
    "chart": "chart",
    "cluster": "cluster",
    "images": "images",
    "host": "host",
    "workflows": "workflows",
    "security": "code",
}
"""Job of ci.yml -> the area that it is about."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def touched(paths: Iterable[str]) -> dict[str, bool]:
    """Tell which areas these files belong to; a file of no area counts for all of them."""
    found = dict.fromkeys(AREAS, False)
    for path in paths:
        hit = [area for area, pattern in AREAS.items() if pattern.search(path)]
        for area in AREAS if EVERYWHERE.search(path) or not hit else hit:
            found[area] = True
    return found


def changed(base: str, folder: Path) -> list[str] | None:
    """List the files between the merge base with `base` and HEAD; None when git cannot tell."""
    if not COMMIT.fullmatch(base):
        return None
    argv = ["git", "-C", str(folder), "diff", "--name-only", "-z", f"{base}...HEAD"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603  # base is a commit
    return [path for path in done.stdout.split("\0") if path] if done.returncode == 0 else None


def refusals(needs: Mapping[str, Any]) -> list[str]:
    """Say why CI does not pass, given GitHub's `needs` context."""
    outputs = needs.get("changes", {}).get("outputs", {})
    found = []
    for job in ("changes", *NEEDS):
        result = needs.get(job, {}).get("result", "missing")
        spared = result == "skipped" and job in NEEDS and outputs.get(NEEDS[job]) == "false"
        if result != "success" and not spared:
            found.append(f"{job}: {result}")
    return found + [f"{job}: unknown to the gate" for job in needs if job != "changes" and job not in NEEDS]


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run `changes` or `gate`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("changes", "gate"))
    if parser.parse_args(argv).command == "gate":
        found = refusals(json.loads(environ["NEEDS"]))
        print("\n".join(found) or "gate: every job succeeded, or was not needed")
        return 1 if found else 0
    paths = changed(environ.get("BASE", ""), Path.cwd())
    areas = dict.fromkeys(AREAS, True) if paths is None else touched(paths)
    lines = [f"{area}={str(value).lower()}" for area, value in areas.items()]
    print("\n".join(lines))
    if output := environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
