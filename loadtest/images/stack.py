"""Real vLLM on the CPU and the gateway in front of it, as processes, for one benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CLIENT_KEY = "sk-bench"
BUDGET = {"shortest_edge": 4096, "longest_edge": 512 * 512}
"""The engine's own resizing, for those who talk to it directly: the same 512x512 pixels that the gateway leaves."""
START_DEADLINE_S = 300.0


@dataclass(frozen=True)
class Side:
    """Where to send requests, and with which key."""

    name: str
    url: str
    key: str


@dataclass(frozen=True)
class Stack:
    """Both ways to the same engine."""

    direct: Side
    gateway: Side
    pids: dict[str, tuple[int, ...]]
    """The processes that work for each side, by its name; their children count too."""

    def cpu_s(self, side: Side) -> float:
        """CPU time that the side's processes have used so far, in seconds."""
        family = [psutil.Process(pid) for pid in self.pids[side.name]]
        family += [child for one in family for child in one.children(recursive=True)]
        return float(sum(sum(one.cpu_times()[:2]) for one in family))


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(argv: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with the block, its output in `log`."""
    with log.open("wb") as output:
        child = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_ready(url: str, child: subprocess.Popen[bytes], log: Path, deadline_s: float = START_DEADLINE_S) -> None:
    """Until `url` answers 200. Raises RuntimeError with the log's end when the process dies or takes too long."""
    deadline = time.monotonic() + deadline_s
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(url, timeout=5),
        ):
            return
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} is not there:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.3)


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[tuple[Side, int]]:
    """Real vLLM with the demo checkpoint; it takes pictures of any size and shrinks them to 512x512 itself."""
    port, key, log = free_port(), secrets.token_hex(), folder / "engine.log"
    extra = ["--mm-processor-kwargs", json.dumps({"size": BUDGET}), "--max-num-seqs", "64"]
    argv = [sys.executable, "-m", "serving", "run", "--profile", "cpu", "--port", str(port), "--", *extra]
    with process(argv, {**os.environ, "VLLM_API_KEY": key}, log) as child:
        wait_ready(f"http://127.0.0.1:{port}/health", child, log)
        yield Side("direct", f"http://127.0.0.1:{port}", key), child.pid


@contextlib.contextmanager
def gateway(folder: Path, engine_url: str, engine_key: str = "", **settings: str) -> Iterator[tuple[Side, int, str]]:
    """The gateway as users run it, but for the response cache, which would answer instead of the engine."""
    port, metrics_port, log = free_port(), free_port(), folder / "gateway.log"
    keys = folder / "keys.json"
    record = {
        "id": "bench",
        "tenant": "bench",
        "sha256": sha256(CLIENT_KEY.encode()).hexdigest(),
        "created": "2026-01-01T00:00:00Z",
    }
    keys.write_text(json.dumps({"keys": [record]}))
    keys.chmod(0o600)
    env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | {
        "GATEWAY_PORT": str(port),
        "GATEWAY_METRICS_PORT": str(metrics_port),
        "GATEWAY_ENGINES": engine_url,
        "GATEWAY_KEYS_FILE": str(keys),
        "GATEWAY_CACHE_POLICY": "never",
        "GATEWAY_LOG_LEVEL": "warning",
    }
    env |= {f"GATEWAY_{name.upper()}": value for name, value in settings.items()}
    if engine_key:
        env["GATEWAY_ENGINE_API_KEY"] = engine_key
    with process([sys.executable, "-m", "gateway", "serve"], env, log) as child:
        wait_ready(f"http://127.0.0.1:{port}/healthz", child, log)
        side = Side("gateway", f"http://127.0.0.1:{port}", CLIENT_KEY)
        yield side, child.pid, f"http://127.0.0.1:{metrics_port}/metrics"


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """Both, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as held:
        folder = Path(name)
        direct, engine_pid = held.enter_context(engine(folder))
        side, pid, _ = held.enter_context(gateway(folder, direct.url, direct.key))
        yield Stack(direct, side, {"direct": (engine_pid,), "gateway": (engine_pid, pid)})
