"""The deploy user's key: the four words, and nothing else that SSH can do."""

from __future__ import annotations

import contextlib
import pwd
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.host.machine import SUDOERS, USER, tell
from tests.host.processes import run
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(1800)

DEADLINE_S = 60


@pytest.mark.parametrize(
    "command",
    [
        "",
        "id",
        "sh",
        "bash -c id",
        "converge",
        "status; id",
        "status\nid",
        "status $(id)",
        "status `id`",
        "status | id",
        "status && id",
        "deploy --version v9 docker.io/library/alpine@sha256:" + "0" * 64,
        "deploy --version v9 $GATEWAY",
        "deploy --version ../../etc IMAGE",
        "deploy --version v9 host/gateway:latest",
        "rollback --etc /tmp",
        "list --help",
        "--etc /tmp status",
        "rollback nothing-like-it",
        "status " + "x" * 2000,
    ],
)
def test_anything_else_over_the_key_is_refused(host, command):
    host.serve("v1")
    before = host.file()["serving"]
    done = host.ssh(command)
    assert done.returncode != 0 or command == "list --help", done.stdout
    assert "uid=" not in done.stdout + done.stderr
    assert host.file()["serving"] == before


@contextlib.contextmanager
def open_key(host):
    """Another key of the same user, without a restriction: what shows that sshd would let each of these things pass."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host.folder / "open_key"))
    allowed = Path(pwd.getpwnam(USER).pw_dir, ".ssh", "authorized_keys")
    before = allowed.read_text()
    allowed.write_text(before + (host.folder / "open_key.pub").read_text())
    try:
        yield "open_key"
    finally:
        allowed.write_text(before)
        for path in host.folder.glob("open_key*"):
            path.unlink()


def ask(host, key, *words, program="ssh", stdin=""):
    argv = [*host.ssh_words(key, program), *words]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def forwards_to_a_port(host, key):
    """`ssh -W`: a connection from the host to whatever listens there, its public port here."""
    request = "GET /readyz HTTP/1.0\r\n\r\n"
    done = ask(host, key, "-W", f"127.0.0.1:{host.public_port}", f"{USER}@127.0.0.1", stdin=request)
    return "HTTP/1." in done.stdout


def listens_on_the_host(host, key):
    """`ssh -R`: a port of the host that leads back."""
    forward = f"127.0.0.1:{free_port()}:127.0.0.1:{host.public_port}"
    words = ["-o", "ExitOnForwardFailure=yes", "-R", forward, f"{USER}@127.0.0.1", "status"]
    return "remote port forwarding failed" not in ask(host, key, *words).stderr


def has_a_terminal(host, key):
    return "PTY allocation request failed" not in ask(host, key, "-tt", f"{USER}@127.0.0.1", "status").stderr


def copies(host, key, *options):
    """scp a file there."""
    here, there = host.folder / "copied", Path("/tmp") / f"host-test-{uuid.uuid4().hex}"
    here.write_text("copied")
    try:
        ask(host, key, *options, str(here), f"{USER}@127.0.0.1:{there}", program="scp")
        return there.exists()
    finally:
        there.unlink(missing_ok=True)


def copies_as_it_did_of_old(host, key):
    return copies(host, key, "-O")


def reads_files(host, key):
    return "authorized_keys" in ask(host, key, f"{USER}@127.0.0.1", program="sftp", stdin="ls .ssh\n").stdout


@pytest.mark.parametrize(
    "can", [forwards_to_a_port, listens_on_the_host, has_a_terminal, copies, copies_as_it_did_of_old, reads_files]
)
def test_the_key_opens_no_other_way(host, can):
    host.serve("v1")
    assert not can(host, "deploy_key")
    with open_key(host) as key:
        assert can(host, key)  # so this would have been noticed
    tell(f"the restricted key: not {can.__name__.replace('_', ' ')}; a key without the restriction does")


def test_the_deploy_user_can_do_nothing_else(host):
    listed = subprocess.run(["sudo", "-l", "-U", USER], capture_output=True, text=True, check=True).stdout
    assert [line.strip() for line in listed.splitlines() if "NOPASSWD" in line] == [f"(root) NOPASSWD: {host.script}"]
    assert SUDOERS.stat().st_mode & 0o777 == 0o440
    for path in (host.folder / "opt").rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & 0o022, path
    allowed = Path(pwd.getpwnam(USER).pw_dir, ".ssh", "authorized_keys")
    for path in (allowed, allowed.parent):
        assert path.stat().st_uid == 0
        assert not path.stat().st_mode & 0o022
