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
    description=Text("NVIDIA DCGM: work, memory, heat, faults.", "NVIDIA DCGM：利用率、显存、温度、故障。"),
    rows=(
        Row(
            Text("Work", "利用率"),
            (
                Panel(
                    Text("GPU utilisation", "GPU 利用率"),
                    Text(
                        "Share of time that some kernel ran. High alone says little: look at the tensor cores beside it.",
                        "有内核在运行的时间占比。仅凭高值说明不了什么：请看旁边的张量核。",
                    ),
                    "percent",
                    (q(gpu("DCGM_FI_DEV_GPU_UTIL"), WHO),),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Tensor activity", "张量核活动"),
                    Text(
                        "Share of cycles that the tensor cores worked: how much of what was paid for is used.",
                        "张量核工作的周期占比：付费的算力用了多少。",
                    ),
                    "percentunit",
                    (q(gpu("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"), WHO),),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Memory bandwidth in use", "显存带宽占用"),
                    Text(
                        "Share of cycles that memory was read or written: what bounds decoding.",
                        "显存读写的周期占比：解码阶段的瓶颈。",
                    ),
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
                    Text(
                        "vLLM takes its share at the start; growth afterwards ends in an out-of-memory fault.",
                        "vLLM 启动时就占满份额；之后的增长会以显存不足告终。",
                    ),
                    "mbytes",
                    (q(gpu("DCGM_FI_DEV_FB_USED"), WHO),),
                    "GPUMemoryGrowth",
                ),
                Panel(
                    Text("Memory free", "空闲显存"),
                    Text(
                        "Below 500 MiB a large picture may be one too many.",
                        "低于 500 MiB 时，一张大图就可能超出显存。",
                    ),
                    "mbytes",
                    (q(gpu("DCGM_FI_DEV_FB_FREE"), WHO),),
                    "GPUMemoryGrowth",
                    warn=1000,
                    bad=500,
                ),
                Panel(
                    Text("Remapped rows", "重映射行"),
                    Text(
                        "Rows of memory replaced after errors that could not be corrected; any failure: exchange the GPU.",
                        "发生不可纠正错误后被替换的显存行；出现任何失败：更换 GPU。",
                    ),
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
                    Text("Above about 85 °C clocks fall.", "超过约 85 °C 时钟会下降。"),
                    "celsius",
                    (q(gpu("DCGM_FI_DEV_GPU_TEMP"), WHO),),
                    "GPUXidError",
                    warn=80,
                    bad=87,
                ),
                Panel(
                    Text("Power", "功耗"),
                    Text("At the board's limit clocks fall.", "达到板卡功耗上限时钟会下降。"),
                    "watt",
                    (q(gpu("DCGM_FI_DEV_POWER_USAGE"), WHO),),
                    "GPUXidError",
                ),
                Panel(
                    Text("Throttled", "降频"),
                    Text(
                        "Share of time that power or heat held the clocks down (DCGM counts nanoseconds).",
                        "因功耗或温度而降频的时间占比（DCGM 以纳秒计）。",
                    ),
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
                    Text(
                        "NVIDIA's fault number; 0 is none. 48, 63, 64, 79, 94, 95 are hardware.",
                        "NVIDIA 的故障编号；0 表示没有。48、63、64、79、94、95 是硬件故障。",
                    ),
                    "none",
                    (q(gpu("DCGM_FI_DEV_XID_ERRORS"), WHO),),
                    "GPUXidError",
                    bad=1,
                    span=12,
                ),
                Panel(
                    Text("SM clock", "SM 时钟"),
                    Text("In MHz. Falls under load: throttled.", "单位 MHz。负载下下降：被降频。"),
                    "none",
                    (q(gpu("DCGM_FI_DEV_SM_CLOCK"), WHO),),
                    "GPUXidError",
                    span=12,
                ),
            ),
        ),
    ),
)
