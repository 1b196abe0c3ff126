"""The stack of the proof: real vLLM on the CPU, the gateway, Redis, an image host and Prometheus that scrapes them."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import yaml

from gateway.prometheus_api import Prometheus
from helm.observability.queries import FILES
from serving.demo import launch_plan
from serving.demo.launch_plan import HOST, Ports
from serving.demo.launch_process import Child, adopt_orphans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

KEY, LIMITED_KEY = "sk-proof", "sk-proof-limited"
NAMESPACE = "proof"
SCRAPE_S = 1
ALERT_WINDOW_S = 15
"""In the place of 5 minutes: a fault that is over is forgotten before the next one."""
FETCH_TIMEOUT_S = 2.0
READY_DEADLINE_S = 300.0
GRACE_S = 20.0


class StackError(Exception):
    """The stack cannot be started; the text has the log's end."""


class ImageHost(http.server.ThreadingHTTPServer):
    """Gives one picture under any path, as slowly as it is told to."""

    def __init__(self, picture: bytes) -> None:
        super().__init__((HOST, 0), _Handler)
        self.picture = picture
        self.delay_s = 0.0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ImageHost

    def do_GET(self) -> None:
        time.sleep(self.server.delay_s)
        with contextlib.suppress(OSError):  # whoever asked may have left
            self.send_response(200)
            self.send_header("content-type", "image/jpeg")
            self.send_header("content-length", str(len(self.server.picture)))
            self.end_headers()
            self.wfile.write(self.server.picture)

    def log_message(self, *_: object) -> None:
        """Nothing: the proof prints what matters."""


@dataclass
class Stack:
    """What runs, and where."""

    url: str
    metrics_url: str
    prometheus: Prometheus
    prometheus_url: str
    images: ImageHost
    engine: Child
    redis: Child
    children: list[Child]
    start_redis: Callable[[], Child]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def answers(url: str) -> bool:
    """Whether a GET gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
            return True
    except (urllib.error.URLError, OSError):
        return False


def wait_for(holds: Callable[[], bool], what: str, children: Sequence[Child], deadline_s: float) -> None:
    """Return once it holds; raises StackError when a child dies or the time is over."""
    until = time.monotonic() + deadline_s
    while not holds():
        for child in children:
            if child.fault:
                raise StackError(f"{child.fault} while waiting for {what}:\n{child.tail()}")
        if time.monotonic() > until:
            raise StackError(f"no {what} within {deadline_s:.0f} s")
        time.sleep(0.1)


def without_waiting(folder: Path) -> list[str]:
    """Copies of the rules whose alerts fire and end within seconds: `for` and windows are promtool's business."""
    copies = []
    for path in sorted((FILES / "alerts").glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in document["groups"]:
            for rule in group["rules"]:
                rule.pop("for", None)
                if "alert" in rule:
                    rule["expr"] = rule["expr"].replace("[5m]", f"[{ALERT_WINDOW_S}s]")
        copy = folder / path.name
        copy.write_text(yaml.safe_dump(document), encoding="utf-8")
        copies.append(str(copy))
    return copies


def prometheus_config(folder: Path, gateway_metrics: int, engine: int) -> Path:
    """Scrape both each second, evaluate the rules as often."""
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": without_waiting(folder),
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [{"targets": [f"{HOST}:{port}"], "labels": {"namespace": NAMESPACE}}],
            }
            for job, port in (("gateway", gateway_metrics), ("engine", engine))
        ],
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def keys_file(folder: Path) -> Path:
    """Two tenants, one with a limit it will reach and a key that expires within days."""
    now = datetime.now(UTC)
    keys = [
        {"id": f"k_{tenant}", "tenant": tenant, "created": now.isoformat(), **more}
        | {"sha256": hashlib.sha256(key.encode()).hexdigest()}
        for key, tenant, more in (
            (KEY, "shop", {"priority": "interactive"}),
            (LIMITED_KEY, "trial", {"requests_per_minute": 5, "expires": (now + timedelta(days=3)).isoformat()}),
        )
    ]
    path = folder / "keys.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"keys": keys}), encoding="utf-8")
    return path


@contextlib.contextmanager
def started(folder: Path, picture: bytes, say: Callable[[str], None]) -> Iterator[Stack]:
    """Everything up and the engine generating; nothing is left afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder = folder.resolve()
    adopt_orphans()
    port, metrics, engine_port, prometheus_port, redis_port = free_ports(5)
    ports = Ports(port, metrics, engine_port)
    engine_key = secrets.token_hex()
    env = launch_plan.gateway_env(os.environ, ports, keys_file(folder), engine_key) | {
        "GATEWAY_REDIS_URL": f"redis://{HOST}:{redis_port}/0",
        "GATEWAY_AUDIT": "hash",
        "GATEWAY_AUDIT_FILE": str(folder / "audit.jsonl"),
        "GATEWAY_IMAGE_ALLOWED_HOSTS": HOST,
        "GATEWAY_IMAGE_FETCH_TIMEOUT_S": str(FETCH_TIMEOUT_S),
        "GATEWAY_ENGINE_PROBE_INTERVAL_S": "1",
        "GATEWAY_ENGINE_PROBE_TIMEOUT_S": "4",
        "GATEWAY_BUILD_REVISION": "proof",
        "GATEWAY_MODEL_REVISION": "demo",
    }
    with contextlib.ExitStack() as held:
        images = ImageHost(picture)
        threading.Thread(target=images.serve_forever, daemon=True).start()
        held.callback(images.shutdown)

        def start(name: str, argv: list[str], environment: dict[str, str]) -> Child:
            child = Child.start(name, argv, environment, folder / f"{name}.log")
            held.callback(child.stop, GRACE_S)
            return child

        def start_redis() -> Child:
            return start(
                "redis", ["redis-server", "--port", str(redis_port), "--save", "", "--bind", HOST], {**os.environ}
            )

        redis = start_redis()
        engine = start("engine", launch_plan.engine_argv(ports), launch_plan.engine_env(os.environ, engine_key))
        gateway = start("gateway", [sys.executable, "-m", "helm.observability.open_gateway"], env)
        prometheus = start(
            "prometheus",
            [
                "prometheus",
                f"--config.file={prometheus_config(folder, metrics, engine_port)}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={HOST}:{prometheus_port}",
            ],
            {**os.environ},
        )
        children = [engine, gateway, prometheus]
        prometheus_url, url = f"http://{HOST}:{prometheus_port}", f"http://{HOST}:{port}"
        wait_for(lambda: answers(f"{prometheus_url}/-/ready"), "Prometheus", children, 60)
        say("Prometheus scrapes; waiting for vLLM")
        wait_for(lambda: answers(f"{url}/readyz"), "engine", children, READY_DEADLINE_S)
        yield Stack(
            url,
            f"http://{HOST}:{metrics}/metrics",
            Prometheus(prometheus_url),
            prometheus_url,
            images,
            engine,
            redis,
            children,
            start_redis,
        )
