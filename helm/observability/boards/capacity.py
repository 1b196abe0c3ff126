"""How much more it takes: KV cache, queue, and what is left of the plan's figure."""

from helm.observability.model import MODEL, NAMESPACE, Board, Panel, Row, Text, q

MISSES = f'sum(rate(gateway_requests_total{{{NAMESPACE}, operation!~"other|/v1/models", cache!="hit"}}[5m]))'
ENGINES_UP = f"count(min by (engine) (gateway_engine_up{{{NAMESPACE}}}) == 1)"

CAPACITY = Board(
    uid="qwen3vl-capacity",
    title=Text("Qwen3-VL / Capacity", "Qwen3-VL / 容量"),
    description=Text(
        "Headroom against the figure of `python -m serving plan`: set the variable to what it says for your GPU and requests.",
        "对照 `python -m serving plan` 的余量：把变量设为它针对你的 GPU 和请求给出的数值。",
    ),
    plan=True,
    rows=(
        Row(
            Text("Against the plan", "对照计划"),
            (
                Panel(
                    Text("Headroom", "余量"),
                    Text(
                        "What is left of the planned requests a second over all engines that are up. Below 0.2: add engines.",
                        "所有可用引擎计划每秒请求数的剩余部分。低于 0.2：增加引擎。",
                    ),
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
                    Text(
                        "For the present load, with a fifth in reserve.", "承担当前负载并保留五分之一余量所需的引擎数。"
                    ),
                    "short",
                    (q(f"ceil({MISSES} / ($plan * 0.8))", "needed"), q(ENGINES_UP, "up")),
                    "QueueGrowing",
                    kind="stat",
                    span=6,
                ),
                Panel(
                    Text("Engine load against the plan", "引擎负载对照计划"),
                    Text(
                        "Requests a second that reach engines, and what the plan says they sustain.",
                        "到达引擎的每秒请求数，以及计划所说的可承受值。",
                    ),
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
                    Text(
                        "Full: longer waits and preemptions before the GPU is the limit. Shorter contexts or more engines.",
                        "已满：GPU 尚未成为瓶颈就会等待变长、发生抢占。缩短上下文或增加引擎。",
                    ),
                    "percentunit",
                    (q(f"max by (instance) (max_over_time(vllm:kv_cache_usage_perc{{{MODEL}}}[5m]))", "{{instance}}"),),
                    "EngineKVCacheFull",
                    warn=0.8,
                    bad=0.95,
                ),
                Panel(
                    Text("Queue, mean of 5 minutes", "队列，5 分钟平均"),
                    Text(
                        "Requests that wait in the gateway; more than an engine serves at once is one engine too few.",
                        "在网关中等待的请求；超过一个引擎同时能处理的数量，就少一个引擎。",
                    ),
                    "short",
                    (q(f"sum(avg_over_time(gateway_queue_depth{{{NAMESPACE}}}[5m]))", "waiting"),),
                    "QueueGrowing",
                    warn=10,
                    bad=50,
                ),
                Panel(
                    Text("Requests per engine", "每引擎请求数"),
                    Text(
                        "At engines and before them, over the engines that are up: what autoscaling goes by.",
                        "在引擎内和引擎前的请求除以可用引擎数：自动扩缩容的依据。",
                    ),
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
                    Text(
                        "Mean seconds that an engine works on a request. Doubled: half the capacity.",
                        "引擎处理一个请求的平均秒数。翻倍即容量减半。",
                    ),
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
                    Text(
                        "How many cores a request a second takes here; pictures that are decoded cost most.",
                        "网关每处理每秒一个请求所需的核数；需要解码的图片开销最大。",
                    ),
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
                    Text(
                        "The highest load on engines (mean of 5 minutes) within a day: what the next plan must hold.",
                        "一天内引擎的最高负载（5 分钟平均）：下一次规划必须能承受的值。",
                    ),
                    "reqps",
                    (q(f"max_over_time(({MISSES})[1d:1m])", "peak"),),
                    "QueueGrowing",
                ),
            ),
        ),
    ),
)
