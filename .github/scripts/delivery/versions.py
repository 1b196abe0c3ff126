"""Which of two versions is newer, as release_plan.py names them: X.Y.Z-main.N comes before X.Y.Z."""

from __future__ import annotations

import re

VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-main\.(\d+))?")


def newer(served: str, mine: str) -> bool:
    """Whether what serves is newer; not, when one of them is no version."""
    ours, theirs = _order(mine), _order(served)
    return bool(ours and theirs and theirs > ours)


def _order(version: str) -> tuple[float, ...] | None:
    found = VERSION.fullmatch(version)
    return (*(float(part) for part in found.groups()[:3]), float(found[4] or "inf")) if found else None
