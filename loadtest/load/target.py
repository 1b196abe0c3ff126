"""The service under load: which model it serves, and how its answers are checked."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtest.load import answers, wire

if TYPE_CHECKING:
    from loadtest.load.answers import Way
    from loadtest.load.settings import Run

TIMEOUT_S = 10.0
REFUSED = (401, 403)


class TargetError(Exception):
    """The service cannot be tested; one line says why and what to do."""


@dataclass(frozen=True)
class Target:
    """What answers."""

    model: str
    answers: Way


def ask(run: Run, key: str) -> Target:
    """Ask the service for its model, unless the run names it. Raises TargetError."""
    model = run.model or first_model(run.url, key)
    return Target(model, run.answers or answers.way_for(model))


def first_model(url: str, key: str) -> str:
    """Name the first model that the service lists. Raises TargetError."""
    request = urllib.request.Request(url.rstrip("/") + "/v1/models", headers=wire.headers(key))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return str(json.load(response)["data"][0]["id"])
    except urllib.error.HTTPError as exc:
        why = "is KEY right?" if exc.code in REFUSED else "is its engine up?"
        raise TargetError(f"{url} answered {exc.code} to /v1/models: {why}") from exc
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise TargetError(f"{url} lists no model ({exc}): start it, or give --model") from exc
