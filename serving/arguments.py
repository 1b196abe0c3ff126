"""Types of command line arguments that several commands share. A ValueError becomes argparse's usage error."""

from __future__ import annotations

import math


def port(text: str) -> int:
    """Parse a TCP port."""
    number = int(text)
    if not 0 < number < 65536:  # noqa: PLR2004  # 16 bits
        raise ValueError
    return number


def seconds(text: str) -> float:
    """Parse a duration."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError
    return number
