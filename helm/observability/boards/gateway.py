"""Inside the gateway: steps, engines as it sees them, caches, queue, pictures, its own health."""

from helm.observability.model import GATEWAY_ENGINE, NAMESPACE, Board, Panel, Row, Text, q, quantiles


def rate(metric: str, by: str, more: str = "") -> str:
    """The rate of a counter by labels."""
    return f"sum by ({by}) (rate({metric}{{{NAMESPACE}{more}}}[$__rate_interval]))"


GATEWAY = Board(
    uid="qwen3vl-gateway",
    title=Text("Qwen3-VL / Gateway", "Qwen3-VL / 网关"),
    description="What the gateway does with a request, and which neighbour makes it slow.",
    engine_values='label_values(gateway_engine_up{namespace=~"$namespace"}, engine)',
    rows=(
        Row(
            Text("Engines as the gateway sees them", "网关眼中的引擎"),
            (
                Panel(
                    Text("In flight per engine", "各引擎在途请求"),
                    "Uneven: an engine is slow or out. At GATEWAY_ENGINE_MAX_IN_FLIGHT times workers requests wait.",
                    "short",
                    (q(f"sum by (engine) (gateway_engine_in_flight_requests{{{GATEWAY_ENGINE}}})", "{{engine}}"),),
                    "QueueGrowing",
                ),
                Panel(
                    Text("Failures by cause", "失败原因"),
                    "hung: takes connections, says nothing. gone, connect: takes none. closed: broke off before an answer.",
                    "cps",
                    (
                        q(
                            rate("gateway_engine_failures_total", "engine, cause", ', engine=~"$engine"'),
                            "{{engine}} {{cause}}",
                        ),
                    ),
                    "EngineHung",
                ),
                Panel(
                    Text("Taken out", "摘除次数"),
                    "Times in an hour that an engine was taken out; more than one is a flapping engine.",
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
            ),
        ),
        Row(
            Text("Streams", "流式输出"),
            (
                Panel(
                    Text("Time per output token", "每 token 用时"),
                    "Mean within a stream. Readers follow up to 0.1 s.",
                    "s",
                    quantiles("gen_ai_server_time_per_output_token_seconds", NAMESPACE),
                    "FirstTokenBudgetBurnFast",
                    warn=0.1,
                    bad=0.25,
                ),
                Panel(
                    Text("Longest gap", "最长停顿"),
                    "The longest silence within a stream: preemption, a long prefill of others, or a stall.",
                    "s",
                    quantiles("gateway_stream_longest_gap_seconds", NAMESPACE),
                    "EngineKVCacheFull",
                    warn=1,
                    bad=5,
                ),
                Panel(
                    Text("Clients that left", "客户端离开"),
                    "Clients that gave up before their answer was complete: often the first sign of slowness.",
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
                    "Requests that wait for a place at an engine.",
                    "short",
                    (q(f"sum by (priority) (gateway_queue_depth{{{NAMESPACE}}})", "{{priority}}"),),
                    "QueueGrowing",
                    warn=10,
                    bad=50,
                    stacked=True,
                ),
                Panel(
                    Text("P95 wait by class", "各优先级等待 P95"),
                    "Time in the queue.",
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
                    "By the queue (full, deadline) and by keys' limits (429).",
                    "reqps",
                    (
                        q(rate("gateway_queue_refused_total", "priority, reason"), "queue {{priority}} {{reason}}"),
                        q(rate("gateway_limits_refused_total", "limit"), "limit {{limit}}"),
                    ),
                    "RateLimitedRising",
                ),
            ),
        ),
        Row(
            Text("Pictures", "图片"),
            (
                Panel(
                    Text("Download time", "下载时间"),
                    "Of pictures by URL. Seconds here with a fast engine: a slow image host.",
                    "s",
                    quantiles("gateway_image_fetch_seconds", NAMESPACE),
                    "ImageHostSlow",
                    warn=2,
                    bad=5,
                ),
                Panel(
                    Text("Downloads by outcome", "下载结果"),
                    "failed: refused, too large, or too slow for GATEWAY_IMAGE_FETCH_TIMEOUT_S.",
                    "cps",
                    (q(rate("gateway_image_fetches_total", "outcome"), "{{outcome}}"),),
                    "ImageHostSlow",
                ),
                Panel(
                    Text("Pictures by outcome", "图片处理结果"),
                    "shrunk: decoded and encoded anew; kept: from an earlier question; refused: not a usable picture.",
                    "cps",
                    (q(rate("gateway_images_total", "outcome"), "{{outcome}}"),),
                    "EventLoopBlocked",
                ),
            ),
        ),
        Row(
            Text("Caches", "缓存"),
            (
                Panel(
                    Text("Answers by cache", "回答来源"),
                    "hit, miss, or bypass (not to be kept); joined shared an answer under way.",
                    "reqps",
                    (
                        q(rate("gateway_requests_total", "cache"), "{{cache}}"),
                        q(f"sum(rate(gateway_cache_joined_requests_total{{{NAMESPACE}}}[$__rate_interval]))", "joined"),
                    ),
                    "CacheDown",
                ),
                Panel(
                    Text("Memory of the caches", "缓存内存"),
                    "Answers, pictures as fetched, pictures as shrunk, over all workers.",
                    "bytes",
                    (
                        q(f"sum by (cache) (gateway_cache_bytes{{{NAMESPACE}}})", "{{cache}}"),
                        q(f"sum(gateway_image_decode_bytes{{{NAMESPACE}}})", "decoders"),
                    ),
                    "EventLoopBlocked",
                    stacked=True,
                ),
                Panel(
                    Text("Entries and evictions", "条目与淘汰"),
                    "Evictions beside a low share of hits: the cache is too small (GATEWAY_CACHE_MAX_BYTES).",
                    "short",
                    (
                        q(f"sum by (cache) (gateway_cache_entries{{{NAMESPACE}}})", "{{cache}} entries"),
                        q(rate("gateway_cache_evictions_total", "cache"), "{{cache}} evictions/s"),
                    ),
                    "CacheDown",
                ),
                Panel(
                    Text("Shared cache and limits: errors", "共享缓存与限额：错误"),
                    "Redis is away: get, put are misses; unlimited are requests let through without limits.",
                    "cps",
                    (
                        q(rate("gateway_cache_errors_total", "operation"), "{{operation}}"),
                        q(f"sum(rate(gateway_limits_unavailable_total{{{NAMESPACE}}}[$__rate_interval]))", "unlimited"),
                        q(f"sum(rate(gateway_limits_lost_ends_total{{{NAMESPACE}}}[$__rate_interval]))", "lost ends"),
                    ),
                    "CacheDown",
                    warn=0.01,
                    bad=1,
                ),
            ),
        ),
        Row(
            Text("The process", "进程"),
            (
                Panel(
                    Text("Event loop lag", "事件循环延迟"),
                    "How late the loop runs what is due. Above 50 ms something heavy runs where it must not, or the CPU is full.",
                    "s",
                    quantiles("gateway_event_loop_lag_seconds", NAMESPACE),
                    "EventLoopBlocked",
                    warn=0.05,
                    bad=0.25,
                ),
                Panel(
                    Text("Processor and memory", "CPU 与内存"),
                    "Cores used by all workers; memory is on the second panel. One worker fills one core.",
                    "none",
                    (
                        q(f"sum(rate(gateway_cpu_seconds_total{{{NAMESPACE}}}[$__rate_interval]))", "cores"),
                        q(f"sum(gateway_workers{{{NAMESPACE}}})", "workers"),
                    ),
                    "EventLoopBlocked",
                ),
                Panel(
                    Text("Resident memory", "常驻内存"),
                    "All workers. Steady growth over days is a leak.",
                    "bytes",
                    (q(f"sum(gateway_resident_memory_bytes{{{NAMESPACE}}})", "resident"),),
                    "GatewayDown",
                ),
                Panel(
                    Text("Audit records", "审计记录"),
                    "Written and dropped. Dropped ones are inferences without a record.",
                    "cps",
                    (
                        q(f"sum(rate(gateway_audit_records_total{{{NAMESPACE}}}[$__rate_interval]))", "written"),
                        q(rate("gateway_audit_dropped_total", "cause"), "dropped: {{cause}}"),
                    ),
                    "AuditDropping",
                ),
                Panel(
                    Text("Days to the next key expiry", "最近密钥到期（天）"),
                    "Of the next key that expires; beyond the scale when none does.",
                    "d",
                    (q(f"(min(gateway_key_next_expiry_timestamp_seconds{{{NAMESPACE}}}) - time()) / 86400", "days"),),
                    "KeyExpiring",
                    warn=7,
                    bad=1,
                    kind="stat",
                ),
                Panel(
                    Text("Key file", "密钥文件"),
                    "Reloads of the key file in an hour; a failed one leaves the old keys in force.",
                    "short",
                    (
                        q(
                            f"sum by (outcome) (increase(gateway_keys_reloads_total{{{NAMESPACE}}}[1h])) or vector(0)",
                            "{{outcome}}",
                        ),
                    ),
                    "KeyExpiring",
                    kind="stat",
                ),
            ),
        ),
    ),
)
