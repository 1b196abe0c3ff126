"""The start-up report: one line of JSON in the engine's log once it has generated a token, with the phases until then.

`serving run` starts this as a process beside vLLM just before it becomes vLLM itself, so vLLM stays what gets signals
and gives the exit code. The report ends with the first token, or with the engine: its parent is the engine.
docs/decisions/0006 has the alternatives.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving import arguments, readiness
from serving.engine.startup_hook.sitecustomize import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

HOOK = Path(__file__).parent / "engine" / "startup_hook"
ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.5
TOKEN_TIMEOUT_S = 60.0
"""The first one may compile something."""


@dataclass(frozen=True)
class Watched:
    """The engine whose start is reported."""

    profile: str
    host: str
    port: int
    pid: int
    began: float
    """Seconds since the epoch."""
    file: Path
    """Where the hook notes phases."""


def prepare(environ: Mapping[str, str], folder: str | None = None) -> tuple[Path, dict[str, str]]:
    """Make the file for the phases; return it and the variables that switch the hook on. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix="serving-startup-", suffix=".jsonl", dir=folder)
    os.close(descriptor)
    path = os.pathsep.join(filter(None, [str(HOOK), environ.get("PYTHONPATH", "")]))
    return Path(name), {VARIABLE: name, "PYTHONPATH": path}


def spawn(watched: Watched) -> subprocess.Popen[bytes]:
    """Start the process that reports, with this process's standard output."""
    argv = [sys.executable, "-m", "serving.startup", watched.profile, watched.host, str(watched.port)]
    argv += [str(watched.pid), str(watched.began), str(watched.file)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL)


def report(watched: Watched, noted: Iterable[Mapping[str, Any]], first_token_s: float, now: float) -> dict[str, Any]:
    """Make the report. A phase that several processes went through counts as the slowest of them.

    `ended_s` is seconds after the start, so phases can be put in order; some contain others (init_engine: compile and
    capture_graphs, load_model: read_weights). The remainder is Python's imports and processes.
    """
    slowest: dict[str, Mapping[str, Any]] = {}
    for note in noted:
        known = slowest.get(note["phase"])
        if known is None or note["seconds"] > known["seconds"]:
            slowest[note["phase"]] = note
    phases = [
        {"phase": name, "seconds": round(note["seconds"], 2), "ended_s": round(note["at"] - watched.began, 2)}
        for name, note in sorted(slowest.items(), key=lambda item: item[1]["at"])
    ]
    total_s = round(now - watched.began, 2)
    phases.append({"phase": "first_token", "seconds": round(first_token_s, 2), "ended_s": total_s})
    return {"event": "startup", "ready": True, "profile": watched.profile, "seconds": total_s, "phases": phases}


def notes(text: str) -> list[dict[str, Any]]:
    """Read what the hook noted; a line that was cut off is passed over."""
    found = []
    for line in text.splitlines():
        try:
            note = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(note, dict) and note.keys() >= {"phase", "seconds", "at"}:
            found.append(note)
    return found


def watch(
    watched: Watched,
    *,
    ask: Callable[..., float] = readiness.generate_one_token,
    parent: Callable[[], int] = os.getppid,
    sleep: Callable[[float], object] = time.sleep,
    now: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Wait for the first token or for the end of the engine; return the report. Takes the file of phases away."""
    try:
        while parent() == watched.pid:
            try:
                took_s = ask(watched.host, watched.port, os.environ.get("VLLM_API_KEY"), TOKEN_TIMEOUT_S)
            except readiness.NotReady:
                sleep(POLL_S)
            else:
                return report(watched, notes(watched.file.read_text(encoding="utf-8")), took_s, now())
        ended_s = round(now() - watched.began, 2)
        why = "the engine ended before its first token"
        return {"event": "startup", "ready": False, "profile": watched.profile, "seconds": ended_s, "reason": why}
    finally:
        watched.file.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Report on the engine that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m serving.startup", description=__doc__)
    parser.add_argument("profile")
    parser.add_argument("host")
    parser.add_argument("port", type=arguments.port)
    parser.add_argument("pid", type=int)
    parser.add_argument("began", type=float)
    parser.add_argument("file", type=Path)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C in a terminal reaches this process too
        print(json.dumps(watch(Watched(**vars(parser.parse_args(argv))))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
