"""Containers of one slot: pulled by digest, started by compose, stopped. docker and podman take the same words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.host.settings import DEFAULTS, SLOTS, read_env

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from delivery.tools import Done

    from serving.host.settings import Settings

    class Run(Protocol):
        """How a program is run."""

        def __call__(self, argv: list[str], timeout_s: float, environ: Mapping[str, str] | None = None) -> Done:
            """Run it to its end or its deadline, with more in its environment."""
            ...


PULL_TIMEOUT_S, COMMAND_TIMEOUT_S = 3600.0, 300.0
KINDS = ("gateway", "engine")
IMAGE = re.compile(r"(?P<repository>[a-z0-9][a-z0-9.:/_-]{0,200})@sha256:[0-9a-f]{64}")
NO_DIGEST = f"sha256:{'0' * 64}"
"""Of a service that is not started: compose reads the whole file, and stops at a digest that is missing anywhere."""
GRACE_BEYOND_S = 30
"""Beyond the drain's timeout: the container engine kills after it."""


@dataclass(frozen=True)
class Unit:
    """A gateway or an engine in one of the two slots."""

    kind: str
    slot: str


UNITS = tuple(Unit(kind, slot) for kind in KINDS for slot in SLOTS)


@dataclass(frozen=True)
class Containers:
    """This host's containers."""

    settings: Settings
    run: Run

    def name(self, unit: Unit) -> str:
        """Name of a unit's container, as the compose file has it."""
        return f"{self.settings.name}-{unit.kind}-{unit.slot}"

    def pull(self, image: str) -> Done:
        """Fetch an image that is named by its digest."""
        here = self._do("image", "inspect", image)
        if here.ok:
            return here
        return self.run([*self.settings.container, "pull", "--quiet", image], PULL_TIMEOUT_S)

    def start(self, unit: Unit, image: str, engine_slot: str, commit: str) -> Done:
        """Make the unit's container anew, and start it."""
        settings = self.settings
        self.remove(unit)
        environ = {
            **self._digests(()),
            "NAME": settings.name,
            "ETC": str(settings.etc),
            "STATE": str(settings.state),
            "SLOT": unit.slot,
            "GATEWAY_IMAGE": image if unit.kind == "gateway" else "none",
            "ENGINE_IMAGE": image if unit.kind == "engine" else "none",
            "GATEWAY_PORT": str(settings.gateway_ports[unit.slot]),
            "METRICS_PORT": str(settings.metrics_ports[unit.slot]),
            "ENGINE_PORT": str(settings.engine_ports[engine_slot]),
            "ENGINE_GPUS": settings.engine_gpus[engine_slot],
            "MODEL_DIR": settings.model_dir,
            # Whoever replaces an engine wants requests to wait for it.
            "HOLD": "true" if settings.engine_swap == "replace" else "false",
            "STOP_GRACE": f"{settings.drain_timeout_s + GRACE_BEYOND_S:.0f}s",
            "COMMIT": commit,
        }
        return self._compose(f"{settings.name}-{unit.kind}-{unit.slot}", [unit.kind], environ)

    def start_platform(self) -> Done:
        """Start what is not switched: Redis, Prometheus, Grafana, exporters."""
        settings = self.settings
        environ = {
            **self._digests(settings.platform),
            "NAME": settings.name,
            "ETC": str(settings.etc),
            "STATE": str(settings.state),
        }
        return self._compose(settings.name, list(settings.platform), environ)

    def _digests(self, started: Sequence[str]) -> dict[str, str]:
        """Digests that images.env gives; what is not started needs none."""
        others = [service for service in DEFAULTS["PLATFORM"].split() if service not in started]
        given = {name: value for name, value in read_env(self.settings.etc / "images.env").items() if value}
        return {f"{service.upper().replace('-', '_')}_DIGEST": NO_DIGEST for service in others} | given

    def _compose(self, project: str, services: list[str], environ: Mapping[str, str]) -> Done:
        file = self.settings.etc / "compose.yaml"
        words = [*self.settings.compose, "--project-name", project, "--file", str(file), "up", "--detach", *services]
        done = self.run(words, PULL_TIMEOUT_S, environ)
        if done.ok and services and services[0] in KINDS and not self.exists(Unit(services[0], environ["SLOT"])):
            # podman-compose tells of a container that could not be made, and then that all is well.
            return type(done)(1, err=done.err or f"compose made no container for {services[0]}")
        return done

    def stop(self, unit: Unit) -> Done:
        """End a unit with SIGTERM, which drains it; it stays, with its log, until `remove`."""
        grace_s = self.settings.drain_timeout_s + GRACE_BEYOND_S
        name = self.name(unit)
        return self.run([*self.settings.container, "stop", "--time", f"{grace_s:.0f}", name], grace_s + 60)

    def remove(self, unit: Unit) -> Done:
        """Take a unit's container away, running or not."""
        return self._do("rm", "--force", self.name(unit))

    def exists(self, unit: Unit) -> bool:
        """Whether there is a container of this unit, running or not."""
        return self._inspected(unit) is not None

    def running(self, unit: Unit) -> str:
        """Return the image that a unit runs, by digest; empty when it does not run."""
        found = self._inspected(unit)
        if not found or not found["State"]["Running"]:
            return ""
        # docker keeps what was asked for in Config.Image, podman in ImageName.
        return str(found.get("ImageName") or found["Config"]["Image"])

    def crashes(self, unit: Unit) -> int:
        """Count how often the container engine has started a unit anew."""
        found = self._inspected(unit)
        return int(found.get("RestartCount", 0)) if found else 0

    def _inspected(self, unit: Unit) -> dict[str, Any] | None:
        done = self._do("inspect", "--type", "container", self.name(unit))
        found: list[dict[str, Any]] = json.loads(done.out) if done.ok else []
        return found[0] if found else None

    def log(self, unit: Unit, lines: int = 200) -> str:
        """Return the end of a unit's log, both outputs."""
        done = self._do("logs", "--tail", str(lines), self.name(unit))
        return done.out + done.err

    def forget(self, image: str) -> Done:
        """Take an image's files away; one that is in use stays."""
        return self._do("image", "rm", image)

    def make_key(self, image: str, tenant: str) -> Done:
        """Make an API key with the gateway's own tool; it is the output."""
        words = ["run", "--rm", "--network", "none", "--volume", f"{self.settings.etc / 'keys'}:/keys", image]
        return self._do(*words, "keys", "create", "--file", "/keys/keys.json", "--tenant", tenant, "--name", "canary")

    def _do(self, *words: str) -> Done:
        return self.run([*self.settings.container, *words], COMMAND_TIMEOUT_S)
