from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest

from serving import hardware
from tests.support.gpus import FakeNvml, device, machine

ROOT = Path(__file__).parents[3]


def test_every_gpu_is_told_with_name_memory_and_capability():
    nvml = FakeNvml(*machine("a10", "a10"))
    assert hardware.detect(nvml, {}) == machine("a10", "a10")
    assert nvml.opened == 0


def test_the_library_is_let_go_of_when_a_gpu_fails():
    nvml = FakeNvml(device("a10"))
    nvml.nvmlDeviceGetMemoryInfo = lambda _: (_ for _ in ()).throw(nvml.NVMLError("GPU is lost"))
    with pytest.raises(hardware.NoGpu, match="NVML says: GPU is lost"):
        hardware.detect(nvml, {})
    assert nvml.opened == 0


@pytest.mark.parametrize(
    ("words", "indices"),
    [
        (None, [0, 1, 2]),
        ("1", [1]),
        ("2,0", [2, 0]),
        (" 0 , 1 ", [0, 1]),
        ("GPU-1a2b", [1]),
        ("GPU-2a2b-l4,GPU-0", [2, 0]),
    ],
)
def test_hidden_gpus_are_not_seen(words, indices):
    environ = {} if words is None else {"CUDA_VISIBLE_DEVICES": words}
    assert [gpu.index for gpu in hardware.detect(FakeNvml(*machine("l4", "l4", "l4")), environ)] == indices


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("3", r"'3', and there is no such GPU: 0 is NVIDIA L4 \(GPU-0a2b-l4\)"),
        ("-1", "'-1', and there is no such GPU"),
        ("", "is empty, which hides every GPU"),
    ],
)
def test_a_wrong_choice_of_gpus_is_named(words, said):
    with pytest.raises(hardware.NoGpu, match=said):
        hardware.visible(machine("l4"), words)


def test_a_slice_of_a_gpu_cannot_be_known():
    with pytest.raises(hardware.Unknown, match=r"a slice of a GPU, .*: give --profile"):
        hardware.visible(machine("a100-80"), "MIG-7f2c")


def test_a_driver_without_a_gpu_is_no_gpu():
    with pytest.raises(hardware.NoGpu, match="sees no GPU"):
        hardware.detect(FakeNvml(), {})


def test_the_real_library_says_clearly_that_there_is_no_driver():
    import pynvml  # in the lock of the tests

    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a driver")
    with pytest.raises(hardware.NoGpu) as caught:
        hardware.detect(pynvml, {})
    assert str(caught.value).startswith("NVML says: NVML Shared Library Not Found. Install NVIDIA's driver")
    assert "--profile cpu" in str(caught.value)


class TestBindings:
    @pytest.fixture
    def without_pynvml(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pynvml", None)

    def test_an_installed_library_comes_first(self, monkeypatch):
        fake = FakeNvml()
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        assert hardware.bindings() is fake

    def test_the_copy_that_vllm_carries_serves_without_importing_vllm(self, monkeypatch, tmp_path, without_pynvml):
        (tmp_path / "vllm" / "third_party").mkdir(parents=True)
        (tmp_path / "vllm" / "__init__.py").write_text("raise AssertionError('imported')")
        (tmp_path / "vllm" / "third_party" / "pynvml.py").write_text("import sys; HERE = sys.modules[__name__]")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "vllm", raising=False)
        found = hardware.bindings()
        assert found.HERE is found
        del sys.modules["_pynvml_of_vllm"]

    @pytest.mark.parametrize(
        "spec", [None, importlib.machinery.ModuleSpec("vllm", None, origin="/nowhere/vllm/__init__.py")]
    )
    def test_without_either_it_says_what_to_install(self, monkeypatch, without_pynvml, spec):
        monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda _: spec)
        with pytest.raises(hardware.Unknown, match=r"install nvidia-ml-py .* or give --profile"):
            hardware.bindings()

    def test_the_engines_own_copy_works_here(self):
        python = ROOT / ".venv-engine" / "bin" / "python"
        if not python.exists():
            pytest.skip("no engine: run make engine")
        code = "from serving import hardware; hardware.detect(hardware.bindings(), {})"
        done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert "Unknown" not in done.stderr
        assert "NVML says" in done.stderr or done.returncode == 0
