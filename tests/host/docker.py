"""podman as it runs within a container, with a store of the host's own: what stands for docker and its compose."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.host.processes import run
from tests.support.containers import tool

if TYPE_CHECKING:
    from pathlib import Path

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


def storage_driver(folder: Path) -> str:
    """Docker's own, where this machine's kernel and disk take it: vfs copies a whole image for each container."""
    parts = [folder / "overlay" / name for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        part.mkdir(parents=True)
    lower, upper, work, merged = parts
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "overlay", str(merged)], capture_output=True, check=False
    )
    if done.returncode:
        return "vfs"
    run("umount", str(merged))
    return "overlay"


def wrappers(folder: Path, registry_port: int) -> None:
    """The programs that settings name, `bin/podman` and `bin/compose`."""
    binaries = folder / "bin"
    binaries.mkdir()
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=1024:1024"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "127.0.0.1:{registry_port}"\ninsecure = true\n')
    flags = f"--root {folder / 'store'} --runroot {folder / 'run'} --storage-driver {storage_driver(folder)}"
    for name, text in {
        # Layers on their way would else stay in /var/tmp when a pull is killed.
        "podman": f"export TMPDIR={folder} CONTAINERS_CONF={folder / 'containers.conf'}\n"
        f'export CONTAINERS_REGISTRIES_CONF={folder / "registries.conf"}\n{ONE_NETWORK}exec {tool("podman")} {flags} "$@"\n',
        "compose": f'exec {tool("podman-compose")} --podman-path {binaries / "podman"} "$@"\n',
    }.items():
        (binaries / name).write_text("#!/bin/sh\n" + text)
        (binaries / name).chmod(0o755)
