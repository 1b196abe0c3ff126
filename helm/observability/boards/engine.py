"""Inside vLLM, by names that the pinned release has (`make verify-engine` looks)."""

from helm.observability.model import ENGINE, NAMESPACE, Board, Panel, Row, Text, q, quantiles


def rate(metric: str, by: str = "instance") -> str:
    """The rate of one of vLLM's counters by labels."""
    return f"sum by ({by}) (rate({metric}{{{ENGINE}}}[$__rate_interval]))"


def share(part: str, whole: str) -> str:
    """One counter's rate in another's."""
    return f"{rate(part)} / {rate(whole)}"


# Names in full, so that `make verify-engine` finds them.
PHASES = {
    "queue": "vllm:request_queue_time_seconds",
    "prefill": "vllm:request_prefill_time_seconds",
    "decode": "vllm:request_decode_time_seconds",
}
LENGTHS = {"prompt": "vllm:request_prompt_tokens", "generation": "vllm:request_generation_tokens"}

ENGINES = Board(
    uid="qwen3vl-engine",
    title=Text("Qwen3-VL / Engine", "Qwen3-VL / 引擎"),
    description=Text(
        "vLLM's own view: batches, KV cache, where a request's time goes, caches.",
        "vLLM 自身的视角：批次、KV 缓存、请求时间的去向、各类缓存。",
    ),
    rows=(
        Row(
            Text("Load", "负载"),
            (
                Panel(
                    Text("Running and waiting", "运行与等待"),
                    Text(
                        "Requests in the batch and before it. Preprocessing of pictures comes before both and shows in neither.",
                        "在批次中和在批次之前的请求。图片预处理在两者之前，两者都不包含。",
                    ),
                    "short",
                    (
                        q(f"sum by (instance) (vllm:num_requests_running{{{ENGINE}}})", "{{instance}} running"),
                        q(f"sum by (instance) (vllm:num_requests_waiting{{{ENGINE}}})", "{{instance}} waiting"),
                    ),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Waiting by reason", "等待原因"),
                    Text(
                        "capacity: no room in the batch or the KV cache; deferred: held back on purpose.",
                        "capacity：批次或 KV 缓存没有空间；deferred：有意推迟。",
                    ),
                    "short",
                    (q(f"sum by (reason) (vllm:num_requests_waiting_by_reason{{{ENGINE}}})", "{{reason}}"),),
                    "EngineKVCacheFull",
                    warn=10,
                    bad=50,
                ),
                Panel(
                    Text("KV cache in use", "KV 缓存占用"),
                    Text(
                        "Share of the KV cache's blocks. Above 0.95 requests are preempted.",
                        "KV 缓存块的使用占比。超过 0.95 会发生抢占。",
                    ),
                    "percentunit",
                    (q(f"max by (instance) (vllm:kv_cache_usage_perc{{{ENGINE}}})", "{{instance}}"),),
                    "EngineKVCacheFull",
                    warn=0.8,
                    bad=0.95,
                ),
            ),
        ),
        Row(
            Text("Throughput", "吞吐"),
            (
                Panel(
                    Text("Tokens", "Token 速率"),
                    Text(
                        "Tokens a second: of prompts (pictures included) and of answers.",
                        "每秒 token 数：输入（含图片）与输出。",
                    ),
                    "none",
                    (
                        q(rate("vllm:prompt_tokens_total"), "{{instance}} prompt"),
                        q(rate("vllm:generation_tokens_total"), "{{instance}} answer"),
                    ),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Finished requests", "完成的请求"),
                    Text(
                        "By finish reason; many `length` are answers cut at max_tokens, `abort` are clients that left.",
                        "按结束原因统计；`length` 多说明回答在 max_tokens 处被截断，`abort` 是离开的客户端。",
                    ),
                    "reqps",
                    (q(rate("vllm:request_success_total", "finished_reason"), "{{finished_reason}}"),),
                    "EngineDown",
                    stacked=True,
                ),
                Panel(
                    Text("Preemptions", "抢占"),
                    Text(
                        "Requests thrown out of the batch for want of KV cache, to be computed again.",
                        "因 KV 缓存不足而被移出批次、需要重新计算的请求。",
                    ),
                    "cps",
                    (q(rate("vllm:num_preemptions_total"), "{{instance}}"),),
                    "EngineKVCacheFull",
                    warn=0.1,
                    bad=1,
                ),
            ),
        ),
        Row(
            Text("Where the time goes", "时间去向"),
            (
                Panel(
                    Text("First token, in vLLM", "首 token（vLLM 内）"),
                    Text(
                        "From arrival in vLLM. The gateway's figure minus this one is pictures, queue and network.",
                        "从到达 vLLM 算起。网关的数值减去它，就是图片处理、排队和网络。",
                    ),
                    "s",
                    quantiles("vllm:time_to_first_token_seconds", ENGINE),
                    "FirstTokenBudgetBurnFast",
                    warn=1,
                    bad=2.5,
                ),
                Panel(
                    Text("Between tokens", "token 间隔"),
                    Text("Inter-token latency.", "相邻两个 token 之间的时间。"),
                    "s",
                    quantiles("vllm:inter_token_latency_seconds", ENGINE),
                    "FirstTokenBudgetBurnFast",
                    warn=0.1,
                    bad=0.25,
                ),
                Panel(
                    Text("Whole request, in vLLM", "完整请求（vLLM 内）"),
                    Text("From arrival in vLLM to the last token.", "从到达 vLLM 到最后一个 token。"),
                    "s",
                    quantiles("vllm:e2e_request_latency_seconds", ENGINE),
                    "FirstTokenBudgetBurnFast",
                ),
                Panel(
                    Text("Mean time of each phase", "各阶段平均时间"),
                    Text(
                        "Queue grows: too few engines. Prefill: longer prompts or larger pictures. Decode: longer answers or batches.",
                        "queue 增长：引擎太少。prefill：输入变长或图片变大。decode：回答变长或批次变大。",
                    ),
                    "s",
                    tuple(
                        q(share(f"{metric}_sum", f"{metric}_count"), f"{phase} {{{{instance}}}}")
                        for phase, metric in PHASES.items()
                    ),
                    "FirstTokenBudgetBurnFast",
                    span=16,
                ),
                Panel(
                    Text("Time per output token", "每 token 用时"),
                    Text("Mean over a request, in vLLM.", "单个请求内的平均值（vLLM 内）。"),
                    "s",
                    quantiles("vllm:request_time_per_output_token_seconds", ENGINE),
                    "FirstTokenBudgetBurnFast",
                    warn=0.1,
                    bad=0.25,
                ),
            ),
        ),
        Row(
            Text("Sizes and caches", "长度与缓存"),
            (
                Panel(
                    Text("P95 lengths", "长度 P95"),
                    Text("Tokens of prompts and of answers.", "输入与输出的 token 数。"),
                    "short",
                    tuple(
                        q(
                            f"""histogram_quantile(0.95, sum by (le)
                            (rate({metric}_bucket{{{ENGINE}}}[$__rate_interval])))""",
                            kind,
                        )
                        for kind, metric in LENGTHS.items()
                    ),
                    "EngineKVCacheFull",
                ),
                Panel(
                    Text("Prefix cache hits", "前缀缓存命中"),
                    Text("Share of prompt tokens that need not be computed again.", "无需重新计算的输入 token 占比。"),
                    "percentunit",
                    (q(share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"), "{{instance}}"),),
                    "FirstTokenBudgetBurnFast",
                ),
                Panel(
                    Text("Picture cache hits", "图片缓存命中"),
                    Text("Share of pictures whose preprocessing vLLM still has.", "vLLM 仍保留预处理结果的图片占比。"),
                    "percentunit",
                    (q(share("vllm:mm_cache_hits_total", "vllm:mm_cache_queries_total"), "{{instance}}"),),
                    "FirstTokenBudgetBurnFast",
                ),
                Panel(
                    Text("Uptime", "运行时间"),
                    Text("A saw-tooth is an engine that restarts.", "锯齿形表示引擎在反复重启。"),
                    "s",
                    (
                        q(
                            f"""time() - max by (instance) (process_start_time_seconds{{{NAMESPACE}, instance=~"$engine"}})
                            and on (instance) max by (instance) (vllm:num_requests_running{{{ENGINE}}})""",
                            "{{instance}}",
                        ),
                    ),
                    "EngineRestarting",
                    span=24,
                ),
            ),
        ),
    ),
)
