"""Python's collector of cycles, told that it has little to do: nearly all of a request is freed the moment it is over.

With its usual thresholds it looks at the requests under way after every 700 new objects: 6 % of a request's time. What
was made while the process started, imports above all, is never looked at again.
"""

from __future__ import annotations

import gc

NEW_OBJECTS = 20_000
"""Containers made and not yet freed, before the youngest are looked at: some 4 MiB if all of them were garbage."""
YOUNGER_LOOKS = 10
"""Looks at a generation before one at the next older one; Python's own value."""


def collect_seldom() -> None:
    """Set it up for this process; call once everything is there that lives as long as the process does."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, YOUNGER_LOOKS, YOUNGER_LOOKS)
