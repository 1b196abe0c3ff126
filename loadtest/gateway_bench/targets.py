"""The gateways that are compared: how each is started, and which version it is."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import __version__
from loadtest.gateway_bench.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEY = "sk-bench"
ROOT = Path(__file__).parents[2]
LIBRARIES = ("uvicorn", "uvloop", "httptools", "orjson", "msgspec")


@dataclass(frozen=True, slots=True)
class Ports:
    """Where things listen on loopback."""

    gateway: int = 9100
    engine: int = 9000

    @property
    def metrics(self) -> int:
        """Of a gateway that has one."""
        return self.gateway + 1


@dataclass(frozen=True, slots=True)
class Command:
    """What is run."""

    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway."""

    name: str
    version: str
    command: Callable[[Ports, Path], Command]
    """Given a folder of its own; writes its configuration there."""
    is_ours: bool = False
    workers: int = 1


def ours(workers: int = 1) -> Target:
    """This repository's gateway with every feature on, and no limit that is reached."""

    def command(ports: Ports, folder: Path) -> Command:
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        key = {"id": "bench", "tenant": "bench", "sha256": digest, "created": "2026-01-01T00:00:00Z"}
        keys = folder / "keys.json"
        keys.write_text(json.dumps({"keys": [{**key, "cidrs": ["127.0.0.0/8"]}]}))
        keys.chmod(0o600)
        settings = {
            "PORT": ports.gateway,
            "METRICS_PORT": ports.metrics,
            "WORKERS": workers,
            "ENGINES": f"http://127.0.0.1:{ports.engine}",
            "KEYS_FILE": keys,
            "ALLOWED_CIDRS": "127.0.0.0/8,10.0.0.0/8",
            "AUDIT": "hash",
            "AUDIT_FILE": folder / "audit.jsonl",
            "REQUESTS_PER_MINUTE": 10**8,
            "TOKENS_PER_MINUTE": 10**11,
            "TOKENS_PER_DAY": 10**12,
            "CONCURRENT_REQUESTS": 10**5,
            "DRAIN_DELAY_S": 0,
            "DRAIN_TIMEOUT_S": 1,
        }
        env = {f"GATEWAY_{name}": str(value) for name, value in settings.items()}
        return Command([sys.executable, "-m", "gateway", "serve"], {**env, "PYTHONPATH": str(ROOT)})

    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    about = f"{__version__}, Python {sys.version.split()[0]}, {libraries}"
    name = "ours" if workers == 1 else f"ours, {workers} workers"
    return Target(name, about, command, is_ours=True, workers=workers)


def nginx(program: str | None = None) -> Target:
    """The limit: a key check by a map, nothing buffered, cached or logged. Raises BenchError when it is not here."""
    path = program or shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        raise BenchError("nginx is not installed: apt-get install nginx-light, or leave it out with --no-nginx")

    def command(ports: Ports, folder: Path) -> Command:
        config = folder / "nginx.conf"
        config.write_text(NGINX % {"port": ports.gateway, "engine": ports.engine, "key": KEY, "folder": folder})
        return Command([path, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")])

    told = subprocess.run([path, "-v"], capture_output=True, text=True, check=False).stderr
    return Target("nginx", told.partition("nginx/")[2].strip(), command)


NGINX = """\
daemon off; master_process off; pid %(folder)s/nginx.pid; error_log %(folder)s/error.log warn;
events { worker_connections 2048; }
http {
    access_log off; client_max_body_size 64m; keepalive_requests 100000000;
    client_body_temp_path %(folder)s; proxy_temp_path %(folder)s; fastcgi_temp_path %(folder)s;
    uwsgi_temp_path %(folder)s; scgi_temp_path %(folder)s;
    map $http_authorization $known { default 0; "Bearer %(key)s" 1; }
    upstream engine { server 127.0.0.1:%(engine)d; keepalive 256; keepalive_requests 100000000; }
    server {
        listen 127.0.0.1:%(port)d;
        if ($known = 0) { return 401; }
        location / {
            proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 300s;
        }
    }
}
"""

LITELLM = """\
model_list:
  - model_name: sim
    litellm_params: {model: hosted_vllm/sim, api_base: "http://127.0.0.1:%(engine)d/v1", api_key: none}
general_settings: {master_key: %(key)s}
litellm_settings: {telemetry: false}
"""

PACKAGES = {"litellm": "litellm[proxy]", "smg": "smg", "vllm-router": "vllm-router"}
"""Peers that are Python packages, by what pip installs; each gets an environment of its own."""


def packaged(name: str, environments: Path) -> Target:
    """A peer that `install` has installed. Raises BenchError when it has not."""
    programs = environments / name / "bin"
    if not (programs / name).exists():
        raise BenchError(f"{name} is not installed: run once with --install {name}")
    asked = f"import importlib.metadata as m; print(m.version({name!r}))"
    told = subprocess.run([programs / "python", "-c", asked], capture_output=True, text=True, check=True).stdout

    def command(ports: Ports, folder: Path) -> Command:
        address = ["--host", "127.0.0.1", "--port", str(ports.gateway)]
        env = {"PATH": f"{programs}:{os.environ.get('PATH', '')}"}
        if name == "litellm":
            config = folder / "litellm.yaml"
            config.write_text(LITELLM % {"engine": ports.engine, "key": KEY})
            more = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            argv = [str(programs / name), "--config", str(config), *address, "--num_workers", "1"]
            return Command(argv, env | more)
        engine = ["--worker-urls", f"http://127.0.0.1:{ports.engine}", "--policy", "round_robin"]
        common = [*engine, *address, "--api-key", KEY, "--prometheus-port", str(ports.metrics)]
        if name == "smg":
            more_args = ["--backend", "vllm", "--log-level", "error", "--disable-tokenizer-autoload"]
            return Command([str(programs / name), "launch", *common, *more_args], env)
        return Command([str(programs / name), *common, "--log-level", "warning"], env)

    return Target(name, told.strip(), command)


def install(name: str, environments: Path) -> None:
    """A peer into an environment of its own. Raises BenchError."""
    where = environments / name
    try:
        if not (where / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", where], check=True)
        subprocess.run([where / "bin" / "python", "-m", "pip", "install", "--quiet", PACKAGES[name]], check=True)
    except subprocess.CalledProcessError as exc:
        raise BenchError(f"{name} could not be installed; pip's message is above.") from exc


def commanded(text: str) -> Target:
    """A peer given as NAME=COMMAND, with {port}, {engine} (host:port) and {key} in it. Raises BenchError."""
    name, equals, line = text.partition("=")
    if not (name and equals and line):
        raise BenchError(f"--peer wants NAME=COMMAND, not {text!r}")
    try:
        line.format(port=0, engine="", key="")
    except (KeyError, IndexError, ValueError) as exc:
        raise BenchError(f"--peer {name}: only {{port}}, {{engine}} and {{key}} can stand in braces ({exc})") from exc

    def command(ports: Ports, _: Path) -> Command:
        return Command(shlex.split(line.format(port=ports.gateway, engine=f"127.0.0.1:{ports.engine}", key=KEY)))

    return Target(name, "as given", command)
