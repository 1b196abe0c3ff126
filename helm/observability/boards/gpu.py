"""The GPUs, by NVIDIA's dcgm-exporter with the counters in files/dcgm/counters.csv."""

from helm.observability.model import Board, Panel, Row, Text, q

WHO = "{{Hostname}} GPU {{gpu}}"
CHOSEN = 'Hostname=~".*"'


def gpu(metric: str) -> str:
    """The largest over what exports it twice (MIG slices, two exporters), by GPU."""
    return f"max by (Hostname, gpu) ({metric}{{{CHOSEN}}})"


GPU = Board(
    uid="qwen3vl-gpu",
    title=Text("Qwen3-VL / GPU", "Qwen3-VL / GPU"),
    description="NVIDIA DCGM: work, memory, heat, faults.",
    rows=(
        Row(
            Text("Work", "利用率"),
            (
                Panel(
                    Text("GPU utilisation", "GPU 利用率"),
                    "Share of time that some kernel ran. High alone says little: look at the tensor cores beside it.",
                    "percent",
                    (q(gpu("DCGM_FI_DEV_GPU_UTIL"), WHO),),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Tensor activity", "张量核活动"),
                    "Share of cycles that the tensor cores worked: how much of what was paid for is used.",
                    "percentunit",
                    (q(gpu("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"), WHO),),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Memory bandwidth in use", "显存带宽占用"),
                    "Share of cycles that memory was read or written: what bounds decoding.",
                    "percentunit",
                    (q(gpu("DCGM_FI_PROF_DRAM_ACTIVE"), WHO),),
                    "QueueGrowing",
                ),
            ),
        ),
        Row(
            Text("Memory", "显存"),
            (
                Panel(
                    Text("Memory in use", "显存占用"),
                    "vLLM takes its share at the start; growth afterwards ends in an out-of-memory fault.",
                    "mbytes",
                    (q(gpu("DCGM_FI_DEV_FB_USED"), WHO),),
                    "GPUMemoryGrowth",
                ),
                Panel(
                    Text("Memory free", "空闲显存"),
                    "Below 500 MiB a large picture may be one too many.",
                    "mbytes",
                    (q(gpu("DCGM_FI_DEV_FB_FREE"), WHO),),
                    "GPUMemoryGrowth",
                    warn=1000,
                    bad=500,
                ),
                Panel(
                    Text("Remapped rows", "重映射行"),
                    "Rows of memory replaced after errors that could not be corrected; any failure: exchange the GPU.",
                    "short",
                    (
                        q(gpu("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"), WHO),
                        q(gpu("DCGM_FI_DEV_ROW_REMAP_FAILURE"), f"{WHO} failed"),
                    ),
                    "GPUXidError",
                    warn=1,
                    bad=8,
                ),
            ),
        ),
        Row(
            Text("Heat and power", "温度与功耗"),
            (
                Panel(
                    Text("Temperature", "温度"),
                    "Above about 85 °C clocks fall.",
                    "celsius",
                    (q(gpu("DCGM_FI_DEV_GPU_TEMP"), WHO),),
                    "GPUXidError",
                    warn=80,
                    bad=87,
                ),
                Panel(
                    Text("Power", "功耗"),
                    "At the board's limit clocks fall.",
                    "watt",
                    (q(gpu("DCGM_FI_DEV_POWER_USAGE"), WHO),),
                    "GPUXidError",
                ),
                Panel(
                    Text("Throttled", "降频"),
                    "Share of time that power or heat held the clocks down (DCGM counts nanoseconds).",
                    "percentunit",
                    (
                        q(
                            f"max by (Hostname, gpu) (rate(DCGM_FI_DEV_POWER_VIOLATION{{{CHOSEN}}}[$__rate_interval])) / 1e9",
                            f"{WHO} power",
                        ),
                        q(
                            f"max by (Hostname, gpu) (rate(DCGM_FI_DEV_THERMAL_VIOLATION{{{CHOSEN}}}[$__rate_interval])) / 1e9",
                            f"{WHO} heat",
                        ),
                    ),
                    "GPUXidError",
                    warn=0.1,
                    bad=0.5,
                ),
            ),
        ),
        Row(
            Text("Faults", "故障"),
            (
                Panel(
                    Text("Last XID error", "最近 XID 错误"),
                    "NVIDIA's fault number; 0 is none. 48, 63, 64, 79, 94, 95 are hardware.",
                    "none",
                    (q(gpu("DCGM_FI_DEV_XID_ERRORS"), WHO),),
                    "GPUXidError",
                    bad=1,
                    span=12,
                ),
                Panel(
                    Text("SM clock", "SM 时钟"),
                    "In MHz. Falls under load: throttled.",
                    "none",
                    (q(gpu("DCGM_FI_DEV_SM_CLOCK"), WHO),),
                    "GPUXidError",
                    span=12,
                ),
            ),
        ),
    ),
)
