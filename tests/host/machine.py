"""One host, as near to a real one as a machine without docker allows: registry, HAProxy, sshd, podman, the deploy user.

What is installed is what install.sh installs, into folders of the tests' own; the user and the sudo rule are the machine's
and are taken away at the end. The gateway's image is the real one; the engine's is tests/host/engine.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.support import images
from tests.support.containers import ROOT, STORE, podman, storage, tool
from tests.support.demo import die_with_parent, free_ports
from tests.support.gateway import KEY, key_record, write_keys
from tests.workflows.receiver import SECRET, Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "host-test-deploy"
SUDOERS = Path("/etc/sudoers.d/qwen3-vl-host-test")
NAME = "host-test"
DEADLINE_S = 240
GATEWAY_USER = 10001
GOLDEN = ROOT / "serving" / "canary" / "golden" / "demo.toml"
VERSIONS = {
    "v1": {},
    "v2": {},
    "v3": {"ANSWERS": "wrong"},
    "v4": {"COLD_START_S": "3"},
}
"""Engines by version, with what differs in their environment."""


ONE_NETWORK = """\
# podman-compose 1.0.3 puts a container with network_mode into its project's network as well, which podman refuses.
left=$#
while [ "$left" -gt 0 ]; do
  word=$1
  shift
  case $word in
    --net | --network-alias) shift && left=$((left - 1)) ;;
    *) set -- "$@" "$word" ;;
  esac
  left=$((left - 1))
done
"""


def run(*argv: str, deadline_s: float = DEADLINE_S, **more) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=deadline_s, check=False, **more)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


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
        """Begin it on the host; its process is the program's own, as each part of the entry becomes the next."""
        with (self.folder / "killed.log").open("ab") as log:
            return subprocess.Popen(
                [str(self.script), *words],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into libc, no locks
            )

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        """Ask over the restricted key."""
        options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null"]
        options.append(f"UserKnownHostsFile={self.folder / 'known_hosts'}")
        argv = ["ssh", "-F", "/dev/null", "-p", str(self.ssh_port), "-i", str(self.folder / "deploy_key")]
        argv += [word for option in options for word in ("-o", option)]
        return subprocess.run(
            [*argv, f"{USER}@127.0.0.1", command], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )

    def running(self) -> dict[str, str]:
        """Name and image of every container that runs."""
        lines = self.podman("ps", "--format", "{{.Names}} {{.ImageID}}").splitlines()
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
            done = self.deploy_sh(*self.words(version))
            assert done.returncode == 0, done.stdout + done.stderr

    def setting(self, name: str, value: str) -> None:
        path = self.folder / "etc" / "host.env"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}=")]
        path.write_text("\n".join([*lines, f"{name}={value}", ""]))


@contextlib.contextmanager
def process(argv: list[str], log: Path, up, **environ: str) -> Iterator[None]:
    """A server until the end; `up()` says whether it answers."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            stdout=output,
            stderr=output,
            env={**os.environ, **environ},
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into libc, no locks
        )
    try:
        until = time.monotonic() + 30
        while not up():
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


def answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return True


def build(folder: Path) -> None:
    """The images: the real gateway and the engine of the tests, each flattened to one layer, then one per version.

    They stay in .cache/containers, and are built anew when something changed that is in them.
    """
    inputs = _inputs()
    if podman("images", "--quiet", "--filter", f"label=inputs={inputs}").strip():
        return
    base = images.build("gateway/Dockerfile", "host-gateway:real", VERSION="0.0.test", REVISION="0" * 40)
    context = folder / "engine"
    context.mkdir()
    shutil.copy(ROOT / "tests" / "host" / "engine.py", context)
    golden = tomllib.loads(GOLDEN.read_text())
    (context / "answers.json").write_text(json.dumps({case["question"]: case["equals"] for case in golden["case"]}))
    engine = (
        f'FROM {images.BASE}\nCOPY engine.py answers.json /\nENTRYPOINT ["python3", "-B", "/engine.py"]\nCMD ["run"]\n'
    )
    _bud(context, "host-engine:flat", engine, "--squash")
    _bud(context, "host-gateway:flat", f"FROM {base}\n", "--squash")
    for version, environ in VERSIONS.items():
        lines = "".join(f"ENV {name}={value}\n" for name, value in environ.items())
        for kind in ("gateway", "engine"):
            text = f"FROM localhost/host-{kind}:flat\n{lines if kind == 'engine' else ''}LABEL version={version}\n"
            _bud(context, f"host-{kind}:{version}", text)
    _bud(context, "host-built:last", f"FROM scratch\nLABEL inputs={inputs}\n")
    podman("image", "prune", "--force")


def _inputs() -> str:
    """Digest of all that the images are made of."""
    paths = [
        *(ROOT / "gateway").rglob("*.py"),
        *(ROOT / "requirements").glob("*.lock"),
        ROOT / "gateway" / "Dockerfile",
    ]
    digest = hashlib.sha256(json.dumps(VERSIONS).encode())
    for path in [*sorted(paths), ROOT / "tests" / "host" / "engine.py", GOLDEN]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _bud(context: Path, tag: str, dockerfile: str, *options: str) -> None:
    (context / "Dockerfile").write_text(dockerfile)
    run(*storage("buildah"), "bud", "--isolation", "chroot", "--format", "docker", *options, "--tag", tag, str(context))


def push(registry: str) -> dict[tuple[str, str], str]:
    """Push every version; return the names that a deployment is told."""
    found = {}
    for kind in ("gateway", "engine"):
        for version in VERSIONS:
            name = f"{registry}/host/{kind}"
            digest = STORE / "digest"
            podman("push", "--tls-verify=false", "--digestfile", str(digest), f"localhost/host-{kind}:{version}",
                   f"{name}:{version}", deadline_s=DEADLINE_S)  # fmt: skip
            found[kind, version] = f"{name}@{digest.read_text().strip()}"
    return found


@contextlib.contextmanager
def registry(folder: Path, port: int) -> Iterator[None]:
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with process([tool("docker-registry"), "serve", str(config)], folder / "registry.log",
                 lambda: answers(f"http://127.0.0.1:{port}/v2/")):  # fmt: skip
        yield


@contextlib.contextmanager
def sshd(folder: Path, port: int) -> Iterator[None]:
    Path("/run/sshd").mkdir(exist_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key"))
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\nPidFile none\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\n"
    )
    log = folder / "sshd.log"
    with process(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], log, lambda: "listening" in log.read_text()):
        yield


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


def wrappers(folder: Path, registry_port: int) -> None:
    """podman as it runs within a container, with a store of this host's own, for the program and for compose."""
    binaries = folder / "bin"
    binaries.mkdir()
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=1024:1024"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "127.0.0.1:{registry_port}"\ninsecure = true\n')
    flags = f"--root {folder / 'store'} --runroot {folder / 'run'} --storage-driver vfs"
    for name, text in {
        "podman": f"export CONTAINERS_CONF={folder / 'containers.conf'}\n"
        f'export CONTAINERS_REGISTRIES_CONF={folder / "registries.conf"}\n{ONE_NETWORK}exec {tool("podman")} {flags} "$@"\n',
        "compose": f'exec {tool("podman-compose")} --podman-path {binaries / "podman"} "$@"\n',
    }.items():
        (binaries / name).write_text("#!/bin/sh\n" + text)
        (binaries / name).chmod(0o755)


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
        "READY_TIMEOUT_S": "90",
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
    (folder / "etc" / "gateway.env").write_text("GATEWAY_ENGINE_PROBE_INTERVAL_S=0.5\n")
    (folder / "etc" / "engine.env").write_text("LATENCY_S=0.1\n")
    digests = [
        f"{name}_DIGEST=sha256:{'0' * 64}"
        for name in ("REDIS", "PROMETHEUS", "GRAFANA", "NODE_EXPORTER", "DCGM_EXPORTER")
    ]
    (folder / "etc" / "images.env").write_text("\n".join(digests) + "\n")
    (folder / "etc" / "secrets.env").write_text(
        f"NOTIFY_WEBHOOK_URL={machine.receiver.url}/webhook\nNOTIFY_WEBHOOK_SECRET={SECRET}\n"
    )
    run(str(ROOT / "serving" / "host" / "install.sh"), "--deploy-key", str(folder / "deploy_key.pub"), env=environ)
    keys = write_keys(folder / "etc" / "keys" / "keys.json", key_record(KEY, "one"))
    os.chown(keys, GATEWAY_USER, GATEWAY_USER)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """The whole host, set up; everything is gone at the end."""
    registry_port, public_port, ssh_port, *ports = free_ports(9)
    with contextlib.ExitStack() as held:
        # Not pytest's own: another user has to reach restricted.sh.
        folder = Path(tempfile.mkdtemp(prefix="host-test-", dir="/var/tmp"))
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        found = Machine(folder, registry_port, public_port, ssh_port, held.enter_context(receiving()))
        build(folder)
        held.enter_context(registry(folder, registry_port))
        found.images = push(f"127.0.0.1:{registry_port}")
        wrappers(folder, registry_port)
        held.enter_context(deploy_user())
        install(found, ports)
        held.callback(_remove_containers, found)
        held.enter_context(
            process(
                [tool("haproxy"), "-W", "-f", str(folder / "etc" / "haproxy.cfg")],
                folder / "haproxy.log",
                lambda: answers(found.url),
            )
        )
        held.enter_context(sshd(folder, ssh_port))
        yield found


def _remove_containers(found: Machine) -> None:
    found.podman("rm", "--force", "--all", "--time", "0")


def version_of(text: str) -> str:
    """Of `status`: the version that serves."""
    [version] = re.findall(r"^serves: (\S+) \(", text, re.MULTILINE)
    return version
