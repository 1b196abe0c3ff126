"""Runs in a pod beside ask.py: asks without a pause, with three clients, until /tmp/stop appears; then prints the outcome.

No request is asked again: a rollout or a drain that costs one answer is to be seen. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import ask

CLIENTS = 3
STOP = Path("/tmp/stop")  # a container of its own
PICTURE = Path("/test/picture.jpg")


def main() -> int:
    """Exit code 0 when every answer came."""
    url, key, picture = sys.argv[1], os.environ["API_KEY"], PICTURE.read_bytes()
    right, wrong = [], []

    def client() -> None:
        while not STOP.exists():
            try:
                right.append(ask.ask(url, key, picture))
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
