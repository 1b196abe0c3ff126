"""The lower half of the gateway's board: pictures, caches, the process itself."""

from helm.observability.model import NAMESPACE, Panel, Row, Text, counter_rate, q, quantiles

INSIDE = (
    Row(
        Text("Pictures", "图片"),
        (
            Panel(
                Text("Download time", "下载时间"),
                Text(
                    "Of pictures by URL. Seconds here with a fast engine: a slow image host.",
                    "按 URL 下载图片的时间。引擎很快而这里要数秒：图片主机慢。",
                ),
                "s",
                quantiles("gateway_image_fetch_seconds", NAMESPACE),
                "ImageHostSlow",
                warn=2,
                bad=5,
            ),
            Panel(
                Text("Downloads by outcome", "下载结果"),
                Text(
                    "failed: refused, too large, or too slow for GATEWAY_IMAGE_FETCH_TIMEOUT_S.",
                    "failed：被拒绝、过大，或慢于 GATEWAY_IMAGE_FETCH_TIMEOUT_S。",
                ),
                "cps",
                (q(counter_rate("gateway_image_fetches_total", "outcome"), "{{outcome}}"),),
                "ImageHostSlow",
            ),
            Panel(
                Text("Pictures by outcome", "图片处理结果"),
                Text(
                    "shrunk: decoded and encoded anew; kept: from an earlier question; refused: not a usable picture. "
                    "Engine: sent, or only named, as the engine has it; forgotten: named in vain, and sent again.",
                    "shrunk：解码后重新编码；kept：来自之前的提问；refused：不是可用的图片。"
                    "engine：sent 为完整发送，named 为引擎已有、只发名称，forgotten 为引擎已遗忘、需重新发送。",
                ),
                "cps",
                (
                    q(counter_rate("gateway_images_total", "outcome"), "{{outcome}}"),
                    q(counter_rate("gateway_engine_pictures_total", "outcome"), "engine: {{outcome}}"),
                ),
                "EventLoopBlocked",
            ),
        ),
    ),
    Row(
        Text("Caches", "缓存"),
        (
            Panel(
                Text("Answers by cache", "回答来源"),
                Text(
                    "hit, miss, or bypass (not to be kept); joined shared an answer under way.",
                    "hit 命中、miss 未命中、bypass 不缓存；joined 共享了正在生成的回答。",
                ),
                "reqps",
                (
                    q(counter_rate("gateway_requests_total", "cache"), "{{cache}}"),
                    q(f"sum(rate(gateway_cache_joined_requests_total{{{NAMESPACE}}}[$__rate_interval]))", "joined"),
                ),
                "CacheDown",
            ),
            Panel(
                Text("Memory of the caches", "缓存内存"),
                Text(
                    "Answers, pictures as fetched, pictures as shrunk, over all workers.",
                    "回答、下载的图片、缩小后的图片，所有工作进程合计。",
                ),
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
                Text(
                    "Evictions beside a low share of hits: the cache is too small (GATEWAY_CACHE_MAX_BYTES).",
                    "有淘汰且命中率低：缓存太小（GATEWAY_CACHE_MAX_BYTES）。",
                ),
                "short",
                (
                    q(f"sum by (cache) (gateway_cache_entries{{{NAMESPACE}}})", "{{cache}} entries"),
                    q(counter_rate("gateway_cache_evictions_total", "cache"), "{{cache}} evictions/s"),
                ),
                "CacheDown",
            ),
            Panel(
                Text("Shared cache and limits: errors", "共享缓存与限额：错误"),
                Text(
                    "Redis is away: get, put are misses; unlimited are requests let through without limits.",
                    "Redis 不可用：get、put 视为未命中；unlimited 是未经限额检查而放行的请求。",
                ),
                "cps",
                (
                    q(counter_rate("gateway_cache_errors_total", "operation"), "{{operation}}"),
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
                Text(
                    "How late the loop runs what is due. Above 50 ms something heavy runs where it must not (then its own part is large, too), or the CPU is full.",
                    "事件循环执行到期任务的延迟。超过 50 毫秒：循环中有不该有的繁重工作（此时自身部分也大），或 CPU 已满。",
                ),
                "s",
                (
                    *quantiles("gateway_event_loop_lag_seconds", NAMESPACE),
                    q(
                        f"""histogram_quantile(0.99,
                        sum by (le) (rate(gateway_event_loop_own_lag_seconds_bucket{{{NAMESPACE}}}[$__rate_interval])))""",
                        "P99, own",
                    ),
                    q(f"max by (part) (gateway_event_loop_lag_max_seconds{{{NAMESPACE}}})", "longest, {{part}}"),
                ),
                "EventLoopBlocked",
                warn=0.05,
                bad=0.25,
            ),
            Panel(
                Text("Processor and memory", "CPU 与内存"),
                Text(
                    "Cores used by all workers; memory is on the second panel. One worker fills one core.",
                    "所有工作进程使用的核数；一个工作进程最多占满一个核。内存见下一个面板。",
                ),
                "none",
                (
                    q(f"sum(rate(gateway_cpu_seconds_total{{{NAMESPACE}}}[$__rate_interval]))", "cores"),
                    q(f"sum(gateway_workers{{{NAMESPACE}}})", "workers"),
                ),
                "EventLoopBlocked",
            ),
            Panel(
                Text("Resident memory", "常驻内存"),
                Text("All workers. Steady growth over days is a leak.", "所有工作进程合计。数天内持续增长说明有泄漏。"),
                "bytes",
                (q(f"sum(gateway_resident_memory_bytes{{{NAMESPACE}}})", "resident"),),
                "GatewayDown",
            ),
            Panel(
                Text("Youngest worker", "最新的工作进程"),
                Text(
                    "Time since a worker last started. Back to 0 without a deploy: one died, and its cache with it.",
                    "距上次有工作进程启动的时间。没有部署却归零：有进程死亡，其缓存也随之丢失。",
                ),
                "s",
                (q(f"time() - max(gateway_start_time_seconds{{{NAMESPACE}}})", "age"),),
                "GatewayDown",
            ),
            Panel(
                Text("Audit records", "审计记录"),
                Text(
                    "Written and dropped. Dropped ones are inferences without a record.",
                    "已写入与丢失的记录。丢失意味着有推理没有留下记录。",
                ),
                "cps",
                (
                    q(f"sum(rate(gateway_audit_records_total{{{NAMESPACE}}}[$__rate_interval]))", "written"),
                    q(counter_rate("gateway_audit_dropped_total", "cause"), "dropped: {{cause}}"),
                ),
                "AuditDropping",
            ),
            Panel(
                Text("Days to the next key expiry", "最近密钥到期（天）"),
                Text(
                    "Of the next key that expires; beyond the scale when none does.",
                    "最先到期的密钥剩余天数；没有到期的密钥时超出刻度。",
                ),
                "d",
                (q(f"(min(gateway_key_next_expiry_timestamp_seconds{{{NAMESPACE}}}) - time()) / 86400", "days"),),
                "KeyExpiring",
                warn=7,
                bad=1,
                kind="stat",
            ),
            Panel(
                Text("Key file", "密钥文件"),
                Text(
                    "Reloads of the key file in an hour; a failed one leaves the old keys in force.",
                    "一小时内重新加载密钥文件的次数；加载失败时旧密钥继续有效。",
                ),
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
)
