"""One host, as near to a real one as a machine without docker allows: registry, HAProxy, sshd, podman, the deploy user.

What is installed is what install.sh installs, into folders of the tests' own; the user and the sudo rule are the machine's
and are taken away at the end. The gateway's image is the real one; the engine's is tests/host/engine.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from serving.host.tools import Tools
from tests.host.built import build, push, registry
from tests.host.docker import wrappers
from tests.host.processes import DEADLINE_S, answers, process, run, sshd
from tests.support.containers import ROOT, tool
from tests.support.demo import die_with_parent, free_ports
from tests.support.gateway import KEY, key_record, write_keys
from tests.workflows.receiver import Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "host-test-deploy"
SUDOERS = Path("/etc/sudoers.d/qwen3-vl-host-test")
NAME = "host-test"
FOLDERS = Path("/var/tmp")
LOCK = Path("/run/qwen3-vl-host-test.lock")
GATEWAY_USER = 10001
WHICH = "Which version are you?"
"""The tests' engine answers with its own."""
BEGAN = time.monotonic()


def tell(text: str) -> None:
    """Progress, for whoever waits: `make host-test` shows it as it comes."""
    sys.stdout.write(f"[{time.monotonic() - BEGAN:4.0f} s] {text}\n")
    sys.stdout.flush()


@dataclass
class Machine:
    """The host that is deployed to."""

    folder: Path
    registry_port: int
    public_port: int
    ssh_port: int
    receiver: Receiver
    images: dict[tuple[str, str], str] = field(default_factory=dict)
    """By kind and version, with the digest."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.public_port}"

    @property
    def script(self) -> Path:
        return self.folder / "opt" / "serving" / "host" / "deploy.sh"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def podman(self, *words: str) -> str:
        return run(str(self.folder / "bin" / "podman"), *words)

    def words(self, version: str) -> list[str]:
        """A deployment's, as the workflow says them."""
        commit = version.encode().hex().ljust(40, "0")
        head = ["deploy", "--version", version, "--commit", commit, "--actor", "tester"]
        return [*head, self.images["gateway", version], self.images["engine", version]]

    def deploy_sh(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it on the host."""
        return subprocess.run(
            [str(self.script), *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Begin it on the host, in a session of its own; each part of the entry becomes the next, so it is one process."""
        with (self.folder / "killed.log").open("ab") as log:
            return subprocess.Popen(
                [str(self.script), *words],
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into libc, no locks
            )

    def ssh_words(self, key: str = "deploy_key", program: str = "ssh") -> list[str]:
        """How ssh, scp and sftp are called: this host's key pinned, one key, no agent."""
        options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null"]
        options.append(f"UserKnownHostsFile={self.folder / 'known_hosts'}")
        argv = [program, "-F", "/dev/null", "-o", f"Port={self.ssh_port}", "-i", str(self.folder / key)]
        return argv + [word for option in options for word in ("-o", option)]

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        """Ask over the restricted key."""
        argv = [*self.ssh_words(), f"{USER}@127.0.0.1", command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def answering(self) -> str:
        """The version that answers on the public port."""
        body = {"model": "m", "messages": [{"role": "user", "content": WHICH}], "temperature": 1}
        headers = {"authorization": f"Bearer {KEY}"}
        response = httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["message"]["content"]

    def killed(self) -> list[str]:
        """What the programs of `begin` said, all of them."""
        path = self.folder / "killed.log"
        return path.read_text().splitlines() if path.exists() else []

    def containers(self) -> set[str]:
        """Names of all, whether they run or not."""
        return set(self.podman("ps", "--all", "--format", "{{.Names}}").split())

    def running(self) -> dict[str, str]:
        """Name and image of every container that runs; the image by the name and digest that it was asked for."""
        lines = self.podman("ps", "--format", "{{.Names}} {{.Image}}").splitlines()
        return dict(line.split() for line in lines)

    def file(self) -> dict:
        return json.loads((self.state / "state.json").read_text())

    def log(self) -> list[dict]:
        return [json.loads(line) for line in (self.state / "deploy.log").read_text().splitlines()]

    def told(self) -> list[tuple[str, str]]:
        """What the webhook took: event and version."""
        return [(event["event"], event["version"]) for event in self.receiver.taken.get("webhook", [])]

    def serve(self, version: str) -> None:
        """Make a version serve, whatever did."""
        if (self.file()["serving"] or {}).get("version") != version if (self.state / "state.json").exists() else True:
            tell(f"deploying {version}, from which the next test starts")
            done = self.deploy_sh(*self.words(version))
            assert done.returncode == 0, done.stdout + done.stderr

    def setting(self, name: str, value: str) -> None:
        path = self.folder / "etc" / "host.env"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}=")]
        path.write_text("\n".join([*lines, f"{name}={value}", ""]))


@contextlib.contextmanager
def deploy_user() -> Iterator[None]:
    """The user and the sudo rule are install.sh's; they go away with the tests."""
    _forget_user()
    try:
        yield
    finally:
        _forget_user()


def _forget_user() -> None:
    SUDOERS.unlink(missing_ok=True)
    if subprocess.run(["id", USER], capture_output=True, check=False).returncode == 0:
        run("userdel", "--remove", USER)


def install(machine: Machine, ports: list[int]) -> None:
    """What a person does: install.sh, then the settings."""
    folder = machine.folder
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "deploy_key"))
    environ = {
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "PREFIX": str(folder / "opt"),
        "ETC": str(folder / "etc"),
        "STATE": str(folder / "state"),
        "DEPLOY_USER": USER,
        "SUDOERS": str(SUDOERS),
        "UNITS": "",
        "CONTAINER": str(folder / "bin" / "podman"),
        "BIND": f"127.0.0.1:{machine.public_port}",
    }
    (folder / "etc").mkdir()
    settings = {
        "GATEWAY_REPOSITORY": f"127.0.0.1:{machine.registry_port}/host/gateway",
        "ENGINE_REPOSITORY": f"127.0.0.1:{machine.registry_port}/host/engine",
        "PUBLIC_URL": machine.url,
        "CANARY_SET": "demo",
        "ENVIRONMENT": "test",
        "NAME": NAME,
        "KEEP": "3",
        "READY_TIMEOUT_S": "240",
        "DRAIN_TIMEOUT_S": "30",
        "STATE": str(folder / "state"),
        "MODEL_DIR": str(folder),
        "CONTAINER": str(folder / "bin" / "podman"),
        "COMPOSE": str(folder / "bin" / "compose"),
        "PLATFORM": "",
        "PROXY_SOCKET": str(folder / "haproxy.sock"),
        "GATEWAY_PORTS": f"{ports[0]},{ports[1]}",
        "GATEWAY_METRICS_PORTS": f"{ports[2]},{ports[3]}",
        "ENGINE_PORTS": f"{ports[4]},{ports[5]}",
    }
    (folder / "etc" / "host.env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    # Quick to find a new engine; a machine that is busy with other things is no hung engine.
    (folder / "etc" / "gateway.env").write_text(
        "GATEWAY_ENGINE_PROBE_INTERVAL_S=0.5\nGATEWAY_ENGINE_PROBE_TIMEOUT_S=30\n"
    )
    (folder / "etc" / "engine.env").write_text("LATENCY_S=0.1\n")
    digests = [
        f"{name}_DIGEST=sha256:{'0' * 64}"
        for name in ("REDIS", "PROMETHEUS", "GRAFANA", "NODE_EXPORTER", "DCGM_EXPORTER")
    ]
    (folder / "etc" / "images.env").write_text("\n".join(digests) + "\n")
    told = machine.receiver.environ()  # all five services; it takes nothing whose signature does not fit
    (folder / "etc" / "secrets.env").write_text("".join(f"{name}={value}\n" for name, value in told.items()))
    run(str(ROOT / "serving" / "host" / "install.sh"), "--deploy-key", str(folder / "deploy_key.pub"), env=environ)
    keys = write_keys(folder / "etc" / "keys" / "keys.json", key_record(KEY, "one"))
    os.chown(keys, GATEWAY_USER, GATEWAY_USER)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """The whole host, set up; everything is gone at the end."""
    registry_port, public_port, ssh_port, *ports = free_ports(9)
    with contextlib.ExitStack() as held:
        held.enter_context(alone())
        # Not pytest's own: another user has to reach restricted.sh.
        folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-", dir=FOLDERS))
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        found = Machine(folder, registry_port, public_port, ssh_port, held.enter_context(receiving()))
        found.receiver.now = time.time()
        tell("images: the real gateway, the tests' engine (kept in CONTAINER_STORE, or .cache/containers)")
        build(folder)
        tell("a local registry takes them")
        held.enter_context(registry(folder, registry_port))
        found.images = push(f"127.0.0.1:{registry_port}", folder)
        wrappers(folder, registry_port)
        held.enter_context(deploy_user())
        install(found, ports)
        held.callback(_remove_containers, folder)
        held.enter_context(
            process(
                [tool("haproxy"), "-W", "-f", str(folder / "etc" / "haproxy.cfg")],
                folder / "haproxy.log",
                lambda: answers(found.url),
            )
        )
        held.enter_context(sshd(folder, ssh_port))
        tell("installed: HAProxy, sshd, the deploy user")
        yield found
        tell("taking it all away")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One run at a time: the user and the sudo rule are the machine's. Takes away what a killed run has left."""
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another `make host-test` is under way on this machine") from None
        for left in FOLDERS.glob(f"{NAME}-*"):
            tell(f"taking {left} away, which a killed run has left")
            _remove_containers(left)
            shutil.rmtree(left, ignore_errors=True)
        yield


def _remove_containers(folder: Path) -> None:
    Tools(folder / "state" / "child").end_orphans()  # an interrupted deployment's would go on making things
    program = folder / "bin" / "podman"
    try:
        if program.exists():
            run(str(program), "rm", "--force", "--all", "--time", "0")
    finally:
        # Overlay keeps its own folder mounted.
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
            run("umount", mount)


def version_of(text: str) -> str:
    """Of `status`: the version that serves."""
    [version] = re.findall(r"^serves: (\S+) \(", text, re.MULTILINE)
    return version
