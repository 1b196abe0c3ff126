"""Runs in a pod beside ask.py: `load.py URL PICTURE STOP` asks without a pause until the file STOP appears.

Then it prints how many answers came, and why others did not.

No request is asked again: a rollout or a drain that costs one answer is to be seen. No question is asked twice either:
from the second on the gateway's cache would answer, and no engine. Standard library only.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from pathlib import Path

import ask

CLIENTS = 3
TIMEOUT_S = 900.0
"""For one answer: the gateway holds requests while there is no engine (queue_default_s in values.yaml)."""


def main() -> int:
    """Exit code 0 when every answer came."""
    url, picture, stop = sys.argv[1], Path(sys.argv[2]).read_bytes(), Path(sys.argv[3])
    key = os.environ["API_KEY"]
    ask.TIMEOUT_S = TIMEOUT_S
    right, wrong, numbers = [], [], itertools.count()

    def client() -> None:
        while not stop.exists():
            try:
                right.append(ask.ask(url, key, picture, f"{ask.QUESTION} (request {next(numbers)})"))
            except (OSError, ValueError, LookupError) as exc:
                wrong.append(str(exc))

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    print(json.dumps({"answers": len(right), "failures": wrong[:20]}))  # noqa: T201  # the pod's log
    return 1 if wrong or not right else 0


if __name__ == "__main__":
    sys.exit(main())
