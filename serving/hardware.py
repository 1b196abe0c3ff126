# ruff: noqa: N802  # the names of `class Nvml` are NVML's
"""What GPUs are here, asked of NVIDIA's management library (NVML) before torch or vLLM is imported.

NVML is reached through `pynvml`: the package nvidia-ml-py where it is installed, else the copy that vLLM carries
(vllm/third_party/pynvml.py), read as a file, because importing vLLM takes seconds. It judges nothing: fitness.py does.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Memory(Protocol):
    """NVML's nvmlMemory_t, in bytes."""

    total: int
    free: int


class Nvml(Protocol):
    """The part of pynvml that is used. Handles are opaque."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:
        """Load the driver's library."""

    def nvmlShutdown(self) -> None:
        """Let go of it."""

    def nvmlDeviceGetCount(self) -> int:
        """Count GPUs."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        """Name a GPU."""

    def nvmlDeviceGetName(self, handle: object) -> str | bytes:
        """Return its name; bytes in old bindings."""

    def nvmlDeviceGetUUID(self, handle: object) -> str | bytes:
        """Return its UUID."""

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> Memory:
        """Return total and free memory."""

    def nvmlDeviceGetCudaComputeCapability(self, handle: object) -> tuple[int, int]:
        """Return major and minor."""


class NoGpu(Exception):
    """No GPU can be seen; the message says why and what to do."""


class Unknown(NoGpu):
    """What is here cannot be found out, which is not to say that it would not do."""


@dataclass(frozen=True)
class Device:
    """One GPU that CUDA will see."""

    index: int
    """NVML's, in the order of the PCI bus."""
    name: str
    uuid: str
    total_bytes: int
    """NVML's figure, 1-3 % more than CUDA reports."""
    free_bytes: int
    capability: tuple[int, int]


def detect(nvml: Nvml, environ: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the GPUs that CUDA will see, those of $CUDA_VISIBLE_DEVICES in its order. Raises NoGpu.

    Indices are NVML's: CUDA's own default order, the fastest first, differs only where GPUs do, and there
    CUDA_DEVICE_ORDER=PCI_BUS_ID makes them agree.
    """
    try:
        with _opened(nvml):
            found = tuple(_device(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError as exc:
        raise NoGpu(
            f"NVML says: {exc}. Install NVIDIA's driver, and start a container with `--gpus all` (Docker) or with the "
            "resource nvidia.com/gpu (Kubernetes); on a machine without a GPU run the demo with --profile cpu"
        ) from exc
    if not found:
        raise NoGpu("NVIDIA's driver is here and sees no GPU: is one attached to this machine or container?")
    return visible(found, environ.get(VISIBLE))


def visible(devices: tuple[Device, ...], words: str | None) -> tuple[Device, ...]:
    """Apply $CUDA_VISIBLE_DEVICES as CUDA does: indices or beginnings of UUIDs. Raises NoGpu for what names nothing."""
    if words is None:
        return devices
    chosen = []
    for word in filter(None, (part.strip() for part in words.split(","))):
        if word.startswith("MIG-"):
            raise Unknown(f"{VISIBLE} names {word}, a slice of a GPU, whose size is not read here: give --profile")
        matching = [gpu for gpu in devices if word == str(gpu.index) or gpu.uuid.startswith(word)]
        if not matching:
            raise NoGpu(f"{VISIBLE} names {word!r}, and there is no such GPU: {', '.join(map(_listed, devices))}")
        chosen.append(matching[0])
    if not chosen:
        raise NoGpu(f"{VISIBLE} is empty, which hides every GPU: unset it")
    return tuple(chosen)


def bindings() -> Nvml:
    """Find `pynvml`. Raises Unknown."""
    with contextlib.suppress(ImportError):
        found: Nvml = importlib.import_module("pynvml")
        return found
    if (file := _of_vllm()) and (spec := importlib.util.spec_from_file_location("_pynvml_of_vllm", file)):
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # it looks itself up there
        spec.loader.exec_module(module)  # type: ignore[union-attr]  # a spec from a file has a loader
        return module
    raise Unknown("no way to ask for the GPU here: install nvidia-ml-py beside `serving`, or give --profile")


def _of_vllm() -> Path | None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("third_party") / "pynvml.py"
    return file if file.is_file() else None


@contextlib.contextmanager
def _opened(nvml: Nvml) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _device(nvml: Nvml, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        capability=nvml.nvmlDeviceGetCudaComputeCapability(handle),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _listed(device: Device) -> str:
    return f"{device.index} is {device.name} ({device.uuid})"
