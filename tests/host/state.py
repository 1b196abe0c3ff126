"""What has to hold of the host whenever no deployment is under way."""

from __future__ import annotations

from pathlib import Path

from serving.host.tools import TOKEN
from tests.host.machine import NAME, version_of


def runs_alone(host, version):
    """One gateway and one engine, of this version, and nothing else; the port leads there, and it answers rightly."""
    state = host.file()
    assert state["attempt"] is None
    serving = state["serving"]
    assert serving["version"] == version
    [release] = [release for release in state["releases"] if release["version"] == version]
    units = {f"{NAME}-{kind}-{serving[f'{kind}_slot']}": release[kind] for kind in ("gateway", "engine")}
    assert host.containers() == units.keys()
    assert host.running() == units
    assert (host.state / "serving.map").read_text() == f"gateway gateway-{serving['gateway_slot']}\n"
    assert not (host.state / "child").exists()
    assert left_running() == []
    status = host.deploy_sh("status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert "NOT RUNNING" not in status.stdout
    assert version_of(status.stdout) == version
    assert host.answering() == version


def left_running():
    """Command lines of what a run of the program has started and left; containers' monitors are to stay."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = folder.name.isdigit() and f"{TOKEN}=".encode() in (folder / "environ").read_bytes()
            if ours and (folder / "comm").read_text().strip() != "conmon":
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended meanwhile
            continue
    return found
