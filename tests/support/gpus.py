# ruff: noqa: N802  # the names of FakeNvml are NVML's
"""GPUs as NVML would tell of them."""

from __future__ import annotations

from types import SimpleNamespace

from serving.capacity.gpus import GIB
from serving.hardware import Device

MIB = 1 << 20

# NVML's totals: `nvidia-smi --query-gpu=name,memory.total,compute_cap` of each kind.
KINDS = {
    "t4": ("Tesla T4", 15360, (7, 5)),
    "l4": ("NVIDIA L4", 23034, (8, 9)),
    "a10": ("NVIDIA A10", 23028, (8, 6)),
    "l40s": ("NVIDIA L40S", 46068, (8, 9)),
    "a100-40": ("NVIDIA A100-SXM4-40GB", 40960, (8, 0)),
    "a100-80": ("NVIDIA A100-SXM4-80GB", 81920, (8, 0)),
    "h100": ("NVIDIA H100 80GB HBM3", 81559, (9, 0)),
    "rtx-4090": ("NVIDIA GeForce RTX 4090", 24564, (8, 9)),
    "a30": ("NVIDIA A30", 24576, (8, 0)),
    "h20": ("NVIDIA H20", 97871, (9, 0)),
    "b200": ("NVIDIA B200", 183359, (10, 0)),
    "v100": ("Tesla V100-SXM2-32GB", 32768, (7, 0)),
    "rtx-3060": ("NVIDIA GeForce RTX 3060", 12288, (8, 6)),
}


def device(kind, index=0, free_gib=None):
    name, total_mib, capability = KINDS[kind]
    total = total_mib * MIB
    free = total - 400 * MIB if free_gib is None else int(free_gib * GIB)
    return Device(index, name, f"GPU-{index}a2b-{kind}", total, free, capability)


def machine(*kinds):
    return tuple(device(kind, index) for index, kind in enumerate(kinds))


class FakeNvml:
    """Stands where pynvml does."""

    class NVMLError(Exception):
        pass

    def __init__(self, *devices, fault=None):
        self.devices, self.fault = devices, fault
        self.opened = 0

    def nvmlInit(self):
        if self.fault:
            raise self.NVMLError(self.fault)
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlDeviceGetCount(self):
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.devices[index]

    def nvmlDeviceGetName(self, handle):
        return handle.name.encode()  # as old bindings do

    def nvmlDeviceGetUUID(self, handle):
        return handle.uuid

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=handle.total_bytes, free=handle.free_bytes)

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        return handle.capability
