"""Containers without an engine's daemon: podman with runc, images in a folder of the tests' own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
STORE = Path(os.environ.get("CONTAINER_STORE", ROOT / ".cache" / "containers")).resolve()
"""Images that are built; podman notes the path in its database, so it is one whatever link leads there."""
COMMAND_DEADLINE_S = 120
STOP_DEADLINE_S = 60

LIMITS = ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=1024:1024"]
"""Podman's defaults are above what a container within a container may ask for."""
HARDENED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


def tool(name: str) -> str:
    """Path of a Debian tool; a missing one is a failure that names the next step."""
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is missing: run `make system-images`")
    return path


def storage(program: str) -> list[str]:
    """Begin a command of podman or buildah: vfs needs no mounts, hence works within a container."""
    return [tool(program), "--root", str(STORE / "root"), "--runroot", str(STORE / "run"), "--storage-driver", "vfs"]


def podman(
    *words: str, deadline_s: float = COMMAND_DEADLINE_S, check: bool = True, environ: Mapping[str, str] | None = None
) -> str:
    """Run a podman command and return what it prints. Raises RuntimeError with what it complains about."""
    argv = [*storage("podman"), "--runtime", "runc", "--cgroup-manager=cgroupfs", *words]
    env = {**os.environ, **(environ or {})}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=deadline_s, check=False)
    if check and done.returncode:
        raise RuntimeError(f"podman {words[0]} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def inspected(image: str) -> dict[str, Any]:
    """What is known about an image."""
    found: list[dict[str, Any]] = json.loads(podman("image", "inspect", image))
    return found[0]


@contextlib.contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The image's file system, to be read."""
    path = podman("image", "mount", image).strip()
    try:
        yield Path(path)
    finally:
        podman("image", "unmount", image)


@dataclass(frozen=True)
class Container:
    """A container that was started; it may have ended since."""

    id: str

    @property
    def state(self) -> dict[str, Any]:
        """Podman's view: Running, ExitCode, Health."""
        return json.loads(podman("inspect", "--format", "{{json .State}}", self.id))

    @property
    def log(self) -> str:
        """Both outputs."""
        argv = [*storage("podman"), "logs", self.id]
        return subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_DEADLINE_S, check=True
        ).stdout

    def signal(self, name: str) -> None:
        """Send a signal to process 1."""
        podman("kill", "--signal", name, self.id)

    def wait(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Exit code, once it has ended."""
        return int(podman("wait", self.id, deadline_s=deadline_s))

    def run(self, *argv: str) -> int:
        """Exit code of a command within it."""
        program = [*storage("podman"), "--runtime", "runc", "--cgroup-manager=cgroupfs", "exec", self.id, *argv]
        return subprocess.run(program, capture_output=True, timeout=COMMAND_DEADLINE_S, check=False).returncode

    def health(self) -> int:
        """Run the image's HEALTHCHECK once: 0 is healthy."""
        program = [*storage("podman"), "--runtime", "runc", "--cgroup-manager=cgroupfs", "healthcheck", "run", self.id]
        return subprocess.run(program, capture_output=True, timeout=COMMAND_DEADLINE_S, check=False).returncode


@contextlib.contextmanager
def started(
    image: str, *command: str, environ: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> Iterator[Container]:
    """Run a container on the machine's own network, as an orchestrator would at its strictest; gone at the end."""
    variables = [f"--env={name}={value}" for name, value in (environ or {}).items()]
    argv = ["run", "--detach", "--network", "host", *LIMITS, *HARDENED, *variables, *options, image, *command]
    container = Container(podman(*argv).strip())
    try:
        yield container
    finally:
        podman("rm", "--force", "--time", "0", container.id)
