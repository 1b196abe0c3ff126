"""One GPU host without containers: what docker, compose, the canary and HAProxy would do, at the seam where they are run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from delivery.record import Entry
from delivery.tools import Done

from serving.host import settings as host_settings
from serving.host.change import Change
from serving.host.containers import Containers
from serving.host.proxy import Proxy, ProxyGone
from serving.host.report import Reporter
from serving.host.state import StateFile

if TYPE_CHECKING:
    from pathlib import Path

GATEWAY, ENGINE = "registry.test/q/gateway", "registry.test/q/engine"


def digest(name: str) -> str:
    return "sha256:" + name.encode().hex().ljust(64, "0")


def image(kind: str, name: str) -> str:
    return f"{GATEWAY if kind == 'gateway' else ENGINE}@{digest(name)}"


class Killed(BaseException):
    """SIGKILL: nothing of the program runs after it."""


@dataclass(frozen=True)
class Memory(StateFile):
    """The state's file; a kill comes before or after it is replaced, and nothing is written after one."""

    world: World | None = None

    def save(self, state):
        self.world.act("save")
        super().save(state)


@dataclass(frozen=True)
class Log(Reporter):
    """The log; likewise."""

    world: World | None = None

    def ended(self, entry, at):
        self.world.act("log")
        super().ended(entry, at)


@dataclass
class World:
    """The host. `wrong`, `broken` and `absent` are images that answer wrongly, do not start, and cannot be pulled."""

    folder: Path
    containers: dict[str, dict] = field(default_factory=dict)
    pulled: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    map: str = "nowhere"
    in_flight: dict[str, int] = field(default_factory=dict)
    proxy_gone: bool = False
    done: list[str] = field(default_factory=list)
    """What was done, in order."""
    told: list[str] = field(default_factory=list)
    now: float = 1_000_000.0
    kill_after: int | None = None
    """So many more actions, then SIGKILL."""

    @property
    def settings(self):
        return host_settings.load(self.folder / "etc")

    def change(self, kind="deploy", version="v1", commit="abcdef0"):
        """A run of the program."""
        settings = self.settings
        entry = Entry(kind, "test", "qwen3-vl", "who", commit, version, "", f"at {self.now}")
        state = settings.state
        reporter = Log(state / "deploy.log", state / "deploy.prom", {}, self.told.append, self)
        proxy = Proxy(settings.state / "serving.map", self.say)
        states = Memory(settings.state / "state.json", self)
        return Change(
            settings,
            states,
            Containers(settings, self.run),
            proxy,
            reporter,
            self.run,
            self.get,
            entry,
            self.clock,
            self.sleep,
        )

    def deploy(self, version="v1", **images):
        change = self.change(version=version)
        change.deploy(version, {kind: image(kind, name) for kind, name in images.items()})
        return change.entry

    def roll_back(self, version=None):
        change = self.change("rollback", version or "")
        change.roll_back(version)
        return change.entry

    def log(self):
        return [json.loads(line) for line in (self.settings.state / "deploy.log").read_text().splitlines()]

    def state(self):
        return StateFile(self.settings.state / "state.json").load()

    def running(self):
        return {name: found["image"] for name, found in self.containers.items() if found["running"]}

    def clock(self):
        self.now += 0.01
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.in_flight = {slot: count - 1 for slot, count in self.in_flight.items() if count > 1}

    def act(self, what):
        if self.kill_after is not None:
            if self.kill_after == 0:
                raise Killed  # and whatever a `finally` does then comes here, too
            self.kill_after -= 1
        self.done.append(what)

    # ---- HAProxy

    def say(self, command):
        if self.proxy_gone:
            raise ProxyGone("haproxy does not answer")
        words = command.split()
        if words[:2] == ["set", "map"]:
            self.act(f"point to {words[-1]}")
            self.map = words[-1]
            return "\n"
        if words[:2] == ["show", "map"]:
            return f"0x1 gateway {self.map}\n\n"
        rows = [f"gateway-{slot},BACKEND,{self.in_flight.get(slot, 0)}" for slot in "ab"]
        return "\n".join(["# pxname,svname,scur", *rows, ""])

    # ---- HTTP

    def _gateway(self, port):
        return next((box for box in self.containers.values() if box["running"] and box["port"] == port), None)

    def get(self, url):
        port, path = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/(\w+)", url).groups()
        if not (gateway := self._gateway(int(port))):
            return None
        return 200 if path == "healthz" or self._engine(gateway) else 503

    def _engine(self, gateway):
        return next(
            (
                box
                for name, box in self.containers.items()
                if "-engine-" in name
                and box["running"]
                and box["port"] == gateway["engine_port"]
                and box["image"] not in self.broken
            ),
            None,
        )

    # ---- programs

    def run(self, argv, timeout_s, environ=None):
        if "serving.canary" in argv:
            return self._canary(argv[argv.index("--base-url") + 1])
        if argv[1:2] == ["compose"] or argv[0] == "compose":
            return self._up(environ, argv[-1])
        return getattr(self, "_" + argv[1])(argv[2:])

    def _canary(self, url):
        port = int(url.rsplit(":", 1)[1].removesuffix("/v1"))
        if port == 8080:
            slot = self.map.removeprefix("gateway-")
            port = self.settings.gateway_ports.get(slot)
        gateway = self._gateway(port)
        engine = gateway and self._engine(gateway)
        self.act(f"canary at {port}")
        good = engine and not {engine["image"], gateway["image"]} & self.wrong
        return Done(0, "canary: good") if good else Done(1, "canary: BAD: 1 of 8 answers are right")

    def _up(self, environ, service):
        if service not in {"gateway", "engine"}:
            self.act(f"platform {service}")
            return Done(0)
        name = f"{environ['NAME']}-{service}-{environ['SLOT']}"
        port = environ["GATEWAY_PORT" if service == "gateway" else "ENGINE_PORT"]
        asked = environ[f"{service.upper()}_IMAGE"]
        self.act(f"start {service} {environ['SLOT']}")
        if asked not in self.pulled:
            return Done(1, err="no such image")
        self.containers[name] = {
            "image": asked, "running": True, "port": int(port), "engine_port": int(environ["ENGINE_PORT"]), "hold": environ["HOLD"],
            "restarts": 9 if asked in self.broken else 0,
        }  # fmt: skip
        return Done(0)

    def _image(self, words):
        if words[0] == "rm":
            self.act(f"forget {words[1]}")
            self.pulled.discard(words[1])
            return Done(0)
        return Done(0, "id") if words[-1] in self.pulled else Done(1, err="no such image")

    def _pull(self, words):
        self.act(f"pull {words[-1]}")
        if words[-1] in self.absent:
            return Done(1, err="manifest unknown")
        self.pulled.add(words[-1])
        return Done(0)

    def _inspect(self, words):
        box = self.containers.get(words[-1])
        if not box:
            return Done(1, err="no such container")
        found = {
            "State": {"Running": box["running"]},
            "RestartCount": box["restarts"],
            "Config": {"Image": box["image"]},
        }
        return Done(0, json.dumps([found]))

    def _stop(self, words):
        self.act(f"stop {words[-1].removeprefix('qwen3-vl-')}")
        self.containers[words[-1]]["running"] = False
        return Done(0)

    def _rm(self, words):
        if words[-1] in self.containers:
            self.act(f"remove {words[-1].removeprefix('qwen3-vl-')}")
            del self.containers[words[-1]]
        return Done(0)

    def _logs(self, words):
        return Done(0, f"log of {words[-1]}")

    def _run(self, words):
        self.act("make key")
        return Done(0, "sk-canary\n")


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)  # that disks flush is not what is tested
    etc = tmp_path / "etc"
    etc.mkdir()
    (tmp_path / "state").mkdir()
    (etc / "host.env").write_text(
        f"GATEWAY_REPOSITORY={GATEWAY}\nENGINE_REPOSITORY={ENGINE}\nSTATE={tmp_path / 'state'}\nKEEP=2\nREADY_TIMEOUT_S=60\n"
    )
    return World(tmp_path)


@pytest.fixture
def setting(world):
    def change(name, value):
        path = world.folder / "etc" / "host.env"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}=")]
        path.write_text("\n".join([*lines, f"{name}={value}", ""]))

    return change
