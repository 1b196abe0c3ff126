"""How much more it takes: KV cache, queue, and what is left of the plan's figure."""

from helm.observability.model import MODEL, NAMESPACE, Board, Panel, Row, Text, q

MISSES = f'sum(rate(gateway_requests_total{{{NAMESPACE}, operation!~"other|/v1/models", cache!="hit"}}[5m]))'
ENGINES_UP = f"count(min by (engine) (gateway_engine_up{{{NAMESPACE}}}) == 1)"

CAPACITY = Board(
    uid="qwen3vl-capacity",
    title=Text("Qwen3-VL / Capacity", "Qwen3-VL / 容量"),
    description="Headroom against the figure of `python -m serving plan`: set the variable to what it says for your GPU and requests.",
    plan=True,
    rows=(
        Row(
            Text("Against the plan", "对照计划"),
            (
                Panel(
                    Text("Headroom", "余量"),
                    "What is left of the planned requests a second over all engines that are up. Below 0.2: add engines.",
                    "percentunit",
                    (q(f"1 - {MISSES} / ($plan * {ENGINES_UP})", "headroom"),),
                    "QueueGrowing",
                    warn=0.3,
                    bad=0.2,
                    kind="stat",
                    span=6,
                ),
                Panel(
                    Text("Engines needed", "所需引擎数"),
                    "For the present load, with a fifth in reserve.",
                    "short",
                    (q(f"ceil({MISSES} / ($plan * 0.8))", "needed"), q(ENGINES_UP, "up")),
                    "QueueGrowing",
                    kind="stat",
                    span=6,
                ),
                Panel(
                    Text("Engine load against the plan", "引擎负载对照计划"),
                    "Requests a second that reach engines, and what the plan says they sustain.",
                    "reqps",
                    (q(MISSES, "load"), q(f"$plan * {ENGINES_UP}", "plan")),
                    "QueueGrowing",
                    span=12,
                ),
            ),
        ),
        Row(
            Text("What fills up", "什么在变满"),
            (
                Panel(
                    Text("KV cache, highest in 5 minutes", "KV 缓存，5 分钟最高"),
                    "Full: longer waits and preemptions before the GPU is the limit. Shorter contexts or more engines.",
                    "percentunit",
                    (q(f"max by (instance) (max_over_time(vllm:kv_cache_usage_perc{{{MODEL}}}[5m]))", "{{instance}}"),),
                    "EngineKVCacheFull",
                    warn=0.8,
                    bad=0.95,
                ),
                Panel(
                    Text("Queue, mean of 5 minutes", "队列，5 分钟平均"),
                    "Requests that wait in the gateway; more than an engine serves at once is one engine too few.",
                    "short",
                    (q(f"sum(avg_over_time(gateway_queue_depth{{{NAMESPACE}}}[5m]))", "waiting"),),
                    "QueueGrowing",
                    warn=10,
                    bad=50,
                ),
                Panel(
                    Text("Requests per engine", "每引擎请求数"),
                    "At engines and before them, over the engines that are up: what autoscaling goes by.",
                    "short",
                    (
                        q(
                            f"""(sum(gateway_engine_in_flight_requests{{{NAMESPACE}}}) + sum(gateway_queue_depth{{{NAMESPACE}}}))
                            / {ENGINES_UP}""",
                            "per engine",
                        ),
                    ),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Engine time per request", "每请求引擎时间"),
                    "Mean seconds that an engine works on a request. Doubled: half the capacity.",
                    "s",
                    (
                        q(
                            f"""sum(rate(vllm:request_inference_time_seconds_sum{{{MODEL}}}[5m]))
                            / sum(rate(vllm:request_inference_time_seconds_count{{{MODEL}}}[5m]))""",
                            "mean",
                        ),
                    ),
                    "FirstTokenBudgetBurnFast",
                ),
                Panel(
                    Text("Gateway cores per request/s", "网关每请求/秒核数"),
                    "How many cores a request a second takes here; pictures that are decoded cost most.",
                    "none",
                    (
                        q(
                            f"""sum(rate(gateway_cpu_seconds_total{{{NAMESPACE}}}[5m]))
                            / sum(rate(gateway_requests_total{{{NAMESPACE}}}[5m]))""",
                            "cores",
                        ),
                    ),
                    "EventLoopBlocked",
                ),
                Panel(
                    Text("Peak of the last day", "最近一天峰值"),
                    "The highest load on engines (mean of 5 minutes) within a day: what the next plan must hold.",
                    "reqps",
                    (q(f"max_over_time(({MISSES})[1d:1m])", "peak"),),
                    "QueueGrowing",
                ),
            ),
        ),
    ),
)
