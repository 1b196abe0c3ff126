"""/etc/qwen3-vl/host.env -> one frozen object; all faults are told at once. Lines are KEY=VALUE, never a shell's."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

SLOTS = ("a", "b")
REPOSITORY = re.compile(r"[a-z0-9][a-z0-9.:_-]*(/[a-z0-9][a-z0-9._-]*)+")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
SWAPS = ("beside", "replace")

DEFAULTS = {
    "GATEWAY_REPOSITORY": "",
    "ENGINE_REPOSITORY": "",
    "ENVIRONMENT": "production",
    "PUBLIC_URL": "http://127.0.0.1:8080",
    "CANARY_SET": "qwen3-vl-8b",
    "ENGINE_SWAP": "beside",
    "KEEP": "5",
    "READY_TIMEOUT_S": "1500",
    "DRAIN_TIMEOUT_S": "150",
    "STATE": "/var/lib/qwen3-vl",
    "MODEL_DIR": "/data/model",
    "ENGINE_GPUS": "0,0",
    "NAME": "qwen3-vl",
    "CONTAINER": "docker",
    "COMPOSE": "docker compose",
    "PLATFORM": "redis prometheus grafana node-exporter dcgm-exporter",
    "PROXY_SOCKET": "/run/haproxy/qwen3-vl.sock",
    "GATEWAY_PORTS": "8081,8082",
    "GATEWAY_METRICS_PORTS": "9091,9092",
    "ENGINE_PORTS": "8001,8002",
}
"""Every setting; host.env.example says what each is."""


class BadSettings(Exception):
    """The host cannot be deployed to as it is set up; the message says what to change."""


@dataclass(frozen=True)
class Settings:
    """What host.env says."""

    etc: Path
    state: Path
    gateway_repository: str
    """Only images of these two repositories are run, whoever asks."""
    engine_repository: str
    environment: str
    public_url: str
    """Without /v1."""
    canary_set: str
    engine_swap: str
    """`beside`: both engines at once; `replace`: the old one ends first, and requests wait for the new one."""
    keep: int
    """Versions, the one that serves included."""
    ready_timeout_s: float
    drain_timeout_s: float
    model_dir: str
    engine_gpus: dict[str, str]
    """CUDA's numbers of the GPUs, by slot."""
    name: str
    container: tuple[str, ...]
    compose: tuple[str, ...]
    platform: tuple[str, ...]
    """The services of the compose file that are not switched."""
    proxy_socket: str
    gateway_ports: dict[str, int]
    metrics_ports: dict[str, int]
    engine_ports: dict[str, int]


def read_env(path: Path) -> dict[str, str]:
    """Read KEY=VALUE lines, as docker's --env-file does: no quotes, no expansion. A missing file is empty."""
    if not path.is_file():
        return {}
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, _, value in pairs}


def load(etc: Path) -> Settings:
    """Read host.env below `etc`. Raises BadSettings."""
    given = read_env(etc / "host.env")
    faults = [f"{name} is no setting" for name in sorted(set(given) - set(DEFAULTS))]
    value = DEFAULTS | given
    faults += [
        f"{name} is {value[name]!r}: give the repository of its images, such as ghcr.io/owner/repo/gateway"
        for name in ("GATEWAY_REPOSITORY", "ENGINE_REPOSITORY")
        if not REPOSITORY.fullmatch(value[name])
    ]
    if value["ENGINE_SWAP"] not in SWAPS:
        faults.append(f"ENGINE_SWAP is {value['ENGINE_SWAP']!r}: beside or replace")
    faults += [f"{name} is {value[name]!r}" for name in ("NAME", "ENVIRONMENT") if not NAME.fullmatch(value[name])]
    if not value["PUBLIC_URL"].startswith(("http://", "https://")):
        faults.append(f"PUBLIC_URL is {value['PUBLIC_URL']!r}: it has to begin with https:// or http://")
    for name in ("KEEP", "READY_TIMEOUT_S", "DRAIN_TIMEOUT_S"):
        if not value[name].isascii() or not value[name].isdigit() or int(value[name]) < 1:
            faults.append(f"{name} is {value[name]!r}: a whole number of at least 1")
    gpus = [part.strip() for part in value["ENGINE_GPUS"].split(";" if ";" in value["ENGINE_GPUS"] else ",")]
    if len(gpus) != len(SLOTS) or not all(re.fullmatch(r"\d+(,\d+)*", part) for part in gpus):
        faults.append(f"ENGINE_GPUS is {value['ENGINE_GPUS']!r}: GPUs of slot a and of slot b, as 0,0 or 0,1;2,3")
    ports = {name: _ports(value[name]) for name in ("GATEWAY_PORTS", "GATEWAY_METRICS_PORTS", "ENGINE_PORTS")}
    every = [port for pair in ports.values() for port in pair.values()]
    if len(set(every)) != len(SLOTS) * len(ports):
        faults.append("GATEWAY_PORTS, GATEWAY_METRICS_PORTS and ENGINE_PORTS are two each, and all differ")
    if faults:
        raise BadSettings(f"{etc / 'host.env'}: " + "; ".join(faults))
    return Settings(
        etc=etc,
        state=Path(value["STATE"]),
        gateway_repository=value["GATEWAY_REPOSITORY"],
        engine_repository=value["ENGINE_REPOSITORY"],
        environment=value["ENVIRONMENT"],
        public_url=value["PUBLIC_URL"].rstrip("/"),
        canary_set=value["CANARY_SET"],
        engine_swap=value["ENGINE_SWAP"],
        keep=int(value["KEEP"]),
        ready_timeout_s=float(value["READY_TIMEOUT_S"]),
        drain_timeout_s=float(value["DRAIN_TIMEOUT_S"]),
        model_dir=value["MODEL_DIR"],
        engine_gpus=dict(zip(SLOTS, gpus, strict=True)),
        name=value["NAME"],
        container=tuple(shlex.split(value["CONTAINER"])),
        compose=tuple(shlex.split(value["COMPOSE"])),
        platform=tuple(value["PLATFORM"].split()),
        proxy_socket=value["PROXY_SOCKET"],
        gateway_ports=ports["GATEWAY_PORTS"],
        metrics_ports=ports["GATEWAY_METRICS_PORTS"],
        engine_ports=ports["ENGINE_PORTS"],
    )


def _ports(text: str) -> dict[str, int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(SLOTS) or not all(re.fullmatch(r"[1-9]\d{0,4}", part) for part in parts):
        return {}
    return dict(zip(SLOTS, map(int, parts), strict=True))
