"""Programs that the tests run on this machine: to their end, or as servers beside the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.support.demo import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 600
UP_DEADLINE_S = 30
SFTP = "/usr/lib/openssh/sftp-server"
"""As Debian's own sshd_config has it: what a key without a restriction reaches."""


def run(*argv: str, deadline_s: float = DEADLINE_S, **more) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=deadline_s, check=False, **more)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


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
        until = time.monotonic() + UP_DEADLINE_S
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


@contextlib.contextmanager
def sshd(folder: Path, port: int) -> Iterator[None]:
    Path("/run/sshd").mkdir(exist_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key"))
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\nPidFile none\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\nSubsystem sftp {SFTP}\n"
    )
    log = folder / "sshd.log"
    with process(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], log, lambda: "listening" in log.read_text()):
        yield
