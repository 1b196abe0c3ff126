"""The gateway: engines as it sees them, streams, queue and limits; then pictures, caches and its own health."""

from helm.observability.boards.gateway_inside import INSIDE
from helm.observability.model import GATEWAY_ENGINE, NAMESPACE, Board, Panel, Row, Text, counter_rate, q, quantiles

GATEWAY = Board(
    uid="qwen3vl-gateway",
    title=Text("Qwen3-VL / Gateway", "Qwen3-VL / 网关"),
    description=Text(
        "What the gateway does with a request, and which neighbour makes it slow.",
        "网关对请求做了什么，以及哪个邻居让它变慢。",
    ),
    engine_values='label_values(gateway_engine_up{namespace=~"$namespace"}, engine)',
    rows=(
        Row(
            Text("Engines as the gateway sees them", "网关眼中的引擎"),
            (
                Panel(
                    Text("In flight per engine", "各引擎在途请求"),
                    Text(
                        "Uneven: an engine is slow or out. At GATEWAY_ENGINE_MAX_IN_FLIGHT times workers requests wait.",
                        "不均匀：某个引擎变慢或被摘除。达到 GATEWAY_ENGINE_MAX_IN_FLIGHT 乘以工作进程数后，请求开始排队。",
                    ),
                    "short",
                    (q(f"sum by (engine) (gateway_engine_in_flight_requests{{{GATEWAY_ENGINE}}})", "{{engine}}"),),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Failures by cause", "失败原因"),
                    Text(
                        "By the probe: hung takes connections and says nothing, gone takes none, broken fails. By requests: connect, closed, protocol, abort, unavailable (502-504), stopping (drains).",
                        "由探测发现：hung 接受连接但无输出，gone 不接受连接，broken 出错。由请求发现：connect、closed、protocol、abort、unavailable（502-504）、stopping（正在退出）。",
                    ),
                    "cps",
                    (
                        q(
                            counter_rate("gateway_engine_failures_total", "engine, cause", ', engine=~"$engine"'),
                            "{{engine}} {{cause}}",
                        ),
                    ),
                    "EngineHung",
                ),
                Panel(
                    Text("Taken out", "摘除次数"),
                    Text(
                        "Times in an hour that an engine was taken out; more than one is a flapping engine.",
                        "一小时内引擎被摘除的次数；超过一次说明引擎时好时坏。",
                    ),
                    "short",
                    (
                        q(
                            f"sum by (engine) (increase(gateway_engine_ejections_total{{{GATEWAY_ENGINE}}}[1h]))",
                            "{{engine}}",
                        ),
                    ),
                    "EngineDown",
                    warn=1,
                    bad=3,
                ),
                Panel(
                    Text("Retries", "重试"),
                    Text(
                        "Times another engine was asked, by why; refused: the budget of retries was used up, so an overload is spreading. DNS: names of engines that could not be looked up.",
                        "改问另一个引擎的次数，按原因；refused：重试预算用尽，过载正在扩散。DNS：无法解析的引擎名称。",
                    ),
                    "cps",
                    (
                        q(counter_rate("gateway_engine_retries_total", "cause"), "{{cause}}"),
                        q(
                            f"sum(rate(gateway_engine_retries_refused_total{{{NAMESPACE}}}[$__rate_interval]))",
                            "refused",
                        ),
                        q(f"sum(rate(gateway_engine_dns_failures_total{{{NAMESPACE}}}[$__rate_interval]))", "DNS"),
                    ),
                    "EngineDown",
                    span=24,
                ),
            ),
        ),
        Row(
            Text("Streams", "流式输出"),
            (
                Panel(
                    Text("Time per output token", "每 token 用时"),
                    Text(
                        "Mean within a stream. Readers follow up to 0.1 s.",
                        "单个流内的平均值。0.1 秒以内读者感觉流畅。",
                    ),
                    "s",
                    quantiles("gen_ai_server_time_per_output_token_seconds", NAMESPACE),
                    "FirstTokenBudgetBurnFast",
                    warn=0.1,
                    bad=0.25,
                ),
                Panel(
                    Text("Longest gap", "最长停顿"),
                    Text(
                        "The longest silence within a stream: preemption, a long prefill of others, or a stall.",
                        "单个流内最长的停顿：抢占、其他请求的长预填充，或卡顿。",
                    ),
                    "s",
                    quantiles("gateway_stream_longest_gap_seconds", NAMESPACE),
                    "EngineKVCacheFull",
                    warn=1,
                    bad=5,
                ),
                Panel(
                    Text("Clients that left", "客户端离开"),
                    Text(
                        "Clients that gave up before their answer was complete: often the first sign of slowness.",
                        "在回答完成前放弃的客户端：往往是变慢的第一个征兆。",
                    ),
                    "reqps",
                    (
                        q(
                            f"sum(rate(gateway_client_disconnects_total{{{NAMESPACE}}}[$__rate_interval])) or vector(0)",
                            "left",
                        ),
                    ),
                    "FirstTokenBudgetBurnFast",
                ),
            ),
        ),
        Row(
            Text("Queue and limits", "队列与限额"),
            (
                Panel(
                    Text("Queue depth by class", "各优先级排队数"),
                    Text("Requests that wait for a place at an engine.", "等待引擎空位的请求。"),
                    "short",
                    (q(f"sum by (priority) (gateway_queue_depth{{{NAMESPACE}}})", "{{priority}}"),),
                    "QueueGrowing",
                    warn=10,
                    bad=50,
                    stacked=True,
                ),
                Panel(
                    Text("P95 wait by class", "各优先级等待 P95"),
                    Text("Time in the queue.", "在队列中等待的时间。"),
                    "s",
                    (
                        q(
                            f"""histogram_quantile(0.95, sum by (le, priority)
                            (rate(gateway_queue_wait_seconds_bucket{{{NAMESPACE}}}[$__rate_interval])))""",
                            "{{priority}}",
                        ),
                    ),
                    "QueueGrowing",
                    warn=5,
                    bad=20,
                ),
                Panel(
                    Text("Refused", "拒绝"),
                    Text(
                        "By the queue (full, deadline) and by keys' limits (429).",
                        "被队列拒绝（full、deadline）以及被密钥限额拒绝（429）。",
                    ),
                    "reqps",
                    (
                        q(
                            counter_rate("gateway_queue_refused_total", "priority, reason"),
                            "queue {{priority}} {{reason}}",
                        ),
                        q(counter_rate("gateway_limits_refused_total", "limit"), "limit {{limit}}"),
                    ),
                    "RateLimitedRising",
                ),
            ),
        ),
        *INSIDE,
    ),
)
