"""What the demo starts, and with which settings: pure decisions, no process and no file."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving import profile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

HOST = "127.0.0.1"
DEMO_KEY = "sk-demo"
"""Known to everybody, therefore good for loopback only: see `keys_document`."""
LOOPBACK = ("127.0.0.0/8", "::1/128")

STAGES = (
    # A line of vLLM 0.32's log -> what begins with it. Only for people to see: nothing depends on it.
    ("non-default args:", "reading the checkpoint"),
    ("Resolved architecture:", "starting the engine's core process"),
    ("Initializing a V1 LLM engine", "preparing the model"),
    ("Starting to load model", "loading weights"),
    ("KV cache size:", "warming up"),
    ("Starting vLLM server", "opening the API"),
)


@dataclass(frozen=True)
class Ports:
    """Loopback ports of the demo."""

    gateway: int = 8080
    metrics: int = 9090
    engine: int = 8000


def model_name() -> str:
    """Return what clients call the demo's model."""
    return str(profile.load("cpu").flags["served-model-name"])


def keys_document(created: datetime, key: str = DEMO_KEY) -> dict[str, Any]:
    """Make the gateway's key file: the one demo key, by its hash, good from loopback addresses only."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    entry = {
        "id": "demo",
        "tenant": "demo",
        "sha256": digest,
        "created": created.isoformat(timespec="seconds"),
        "cidrs": list(LOOPBACK),
    }
    return {"keys": [entry]}


def engine_argv(ports: Ports) -> list[str]:
    """Make the engine's command: `serving run` becomes vLLM, so its process id is vLLM's."""
    return [sys.executable, "-m", "serving", "run", "--profile", "cpu", "--host", HOST, "--port", str(ports.engine)]


def engine_env(inherited: Mapping[str, str], engine_key: str) -> dict[str, str]:
    """Give the engine a key that only the gateway of this demo knows."""
    return {**inherited, "VLLM_API_KEY": engine_key}


def gateway_argv() -> list[str]:
    """Make the gateway's command."""
    return [sys.executable, "-m", "gateway", "serve"]


def gateway_env(inherited: Mapping[str, str], ports: Ports, keys_file: Path, engine_key: str) -> dict[str, str]:
    """Set the gateway up for loopback clients; GATEWAY_* of the operator's shell belong to another gateway."""
    env = {name: value for name, value in inherited.items() if not name.startswith("GATEWAY_")}
    return {
        **env,
        "GATEWAY_HOST": HOST,
        "GATEWAY_PORT": str(ports.gateway),
        "GATEWAY_METRICS_PORT": str(ports.metrics),
        "GATEWAY_ENGINES": f"http://{HOST}:{ports.engine}",
        "GATEWAY_ENGINE_API_KEY": engine_key,
        "GATEWAY_KEYS_FILE": str(keys_file),
        "GATEWAY_ALLOWED_CIDRS": ",".join(LOOPBACK),
        "GATEWAY_TRUSTED_PROXIES": f"{HOST}/32",
        # The demo's last word is Ctrl-C: nobody waits two minutes for its requests.
        "GATEWAY_DRAIN_DELAY_S": "0",
        "GATEWAY_DRAIN_TIMEOUT_S": "5",
    }


def engine_stage(log: str) -> str | None:
    """Say how far the engine is, from its log; None before its first line."""
    latest: tuple[int, str] | None = None
    for marker, stage in STAGES:
        at = log.rfind(marker)
        if at >= 0 and (latest is None or at > latest[0]):
            latest = (at, stage)
    return latest[1] if latest else None


def curl_line(ports: Ports, picture: str) -> str:
    """Make a command that asks about a picture file of the user's choice."""
    return (
        f"curl -s http://{HOST}:{ports.gateway}/predict -H 'Authorization: Bearer {DEMO_KEY}'"
        f" -H 'Content-Type: application/json'"
        f""" -d '{{"image": "'"$(base64 -w0 {picture})"'", "prompt": "What is in the picture?"}}'"""
    )


def python_snippet(ports: Ports, model: str, picture: str) -> str:
    """Make a program for the shell to go on with; it needs only the OpenAI SDK."""
    return f"""\
{sys.executable} - <<'END'
import base64, openai
client = openai.OpenAI(base_url="http://{HOST}:{ports.gateway}/v1", api_key="{DEMO_KEY}")
picture = base64.b64encode(open("{picture}", "rb").read()).decode()
answer = client.chat.completions.create(model="{model}", temperature=0, messages=[{{"role": "user", "content": [
    {{"type": "image_url", "image_url": {{"url": "data:image/jpeg;base64," + picture}}}},
    {{"type": "text", "text": "What colour is it?"}}]}}])
print(answer.choices[0].message.content)
END"""
