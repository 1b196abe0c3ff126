"""Who uses how much, and what the caches save."""

from helm.observability.model import MODEL, NAMESPACE, Board, Panel, Row, Text, q


def per_tenant(metric: str, more: str = "") -> str:
    """The rate of a counter by tenant."""
    return f"sum by (tenant) (rate({metric}{{{NAMESPACE}{more}}}[$__rate_interval]))"


TENANTS = Board(
    uid="qwen3vl-tenants",
    title=Text("Qwen3-VL / Tenants and cost", "Qwen3-VL / 租户与成本"),
    description=Text(
        "Requests, tokens and pictures by tenant, and what the caches save. Tenants beyond GATEWAY_METRICS_MAX_TENANTS are `other`.",
        "各租户的请求、token 与图片，以及缓存节省了什么。超出 GATEWAY_METRICS_MAX_TENANTS 的租户归入 `other`。",
    ),
    engine_values='label_values(gateway_engine_up{namespace=~"$namespace"}, engine)',
    rows=(
        Row(
            Text("Use", "用量"),
            (
                Panel(
                    Text("Requests", "请求"),
                    Text("Requests a second of each tenant.", "各租户的每秒请求数。"),
                    "reqps",
                    (q(per_tenant("gateway_tenant_requests_total"), "{{tenant}}"),),
                    "RateLimitedRising",
                    stacked=True,
                ),
                Panel(
                    Text("Answer tokens", "输出 token"),
                    Text(
                        "Tokens a second that engines generated for each tenant: the dearest kind.",
                        "引擎每秒为各租户生成的 token：最贵的一种。",
                    ),
                    "none",
                    (q(per_tenant("gateway_tokens_total", ', gen_ai_token_type="output"'), "{{tenant}}"),),
                    "RateLimitedRising",
                    stacked=True,
                ),
                Panel(
                    Text("Prompt tokens", "输入 token"),
                    Text(
                        "Tokens a second that engines read for each tenant, pictures included.",
                        "引擎每秒为各租户读取的 token，含图片。",
                    ),
                    "none",
                    (q(per_tenant("gateway_tokens_total", ', gen_ai_token_type="input"'), "{{tenant}}"),),
                    "RateLimitedRising",
                    stacked=True,
                ),
                Panel(
                    Text("Pictures", "图片"),
                    Text("Pictures a second that engines saw for each tenant.", "引擎每秒为各租户处理的图片数。"),
                    "cps",
                    (q(per_tenant("gateway_tenant_images_total"), "{{tenant}}"),),
                    "RateLimitedRising",
                    stacked=True,
                ),
                Panel(
                    Text("Picture tokens of prompt tokens", "图片 token 占比"),
                    Text(
                        "How much of what a tenant sends is pictures; a lower `detail` makes it less.",
                        "租户发送的内容中图片所占的比例；调低 `detail` 可以减少。",
                    ),
                    "percentunit",
                    (
                        q(
                            per_tenant("gateway_tokens_total", ', gen_ai_token_type="image"')
                            + " / "
                            + per_tenant("gateway_tokens_total", ', gen_ai_token_type="input"'),
                            "{{tenant}}",
                        ),
                    ),
                    "RateLimitedRising",
                ),
                Panel(
                    Text("Refused or failed", "被拒或失败"),
                    Text(
                        "limit: over its limits. client: a fault of its own. The others are ours.",
                        "limit：超出限额。client：租户自身的错误。其余属于我方。",
                    ),
                    "reqps",
                    (
                        q(
                            f"""sum by (tenant, outcome)
                            (rate(gateway_tenant_requests_total{{{NAMESPACE}, outcome!="ok"}}[$__rate_interval]))""",
                            "{{tenant}} {{outcome}}",
                        ),
                    ),
                    "RateLimitedRising",
                ),
            ),
        ),
        Row(
            Text("What caches save", "缓存节省"),
            (
                Panel(
                    Text("Kept answers by tenant", "各租户缓存命中"),
                    Text("Share of a tenant's requests that cost no engine.", "租户的请求中无需引擎的占比。"),
                    "percentunit",
                    (
                        q(
                            per_tenant("gateway_tenant_requests_total", ', cache="hit"')
                            + " / "
                            + per_tenant("gateway_tenant_requests_total"),
                            "{{tenant}}",
                        ),
                    ),
                    "CacheDown",
                ),
                Panel(
                    Text("Answer tokens saved", "节省的输出 token"),
                    Text(
                        "Requests answered from the cache, times the mean length of an answer: tokens a second not generated.",
                        "由缓存回答的请求数乘以回答的平均长度：每秒免于生成的 token。",
                    ),
                    "none",
                    (
                        q(
                            f"""sum(rate(gateway_requests_total{{{NAMESPACE}, cache="hit"}}[$__rate_interval]))
                            * sum(rate(gateway_tokens_total{{{NAMESPACE}, gen_ai_token_type="output"}}[$__rate_interval]))
                            / sum(rate(gateway_requests_total{{{NAMESPACE}, cache!="hit", status="200"}}[$__rate_interval]))""",
                            "saved",
                        ),
                    ),
                    "CacheDown",
                ),
                Panel(
                    Text("Prompt tokens that vLLM had", "vLLM 已有的输入 token"),
                    Text(
                        "Share of prompt tokens that vLLM's prefix cache saved computing.",
                        "由 vLLM 前缀缓存免于计算的输入 token 占比。",
                    ),
                    "percentunit",
                    (
                        q(
                            f"""sum(rate(vllm:prompt_tokens_cached_total{{{MODEL}}}[$__rate_interval]))
                            / sum(rate(vllm:prompt_tokens_total{{{MODEL}}}[$__rate_interval]))""",
                            "cached",
                        ),
                    ),
                    "CacheDown",
                ),
            ),
        ),
        Row(
            Text("The last day", "最近一天"),
            (
                Panel(
                    Text("Tokens of the last day", "最近一天 token"),
                    Text(
                        "For billing by tenant, as far as Prometheus keeps a day; the audit log has the exact records.",
                        "用于按租户计费的参考，前提是 Prometheus 保留一天数据；精确记录在审计日志中。",
                    ),
                    "short",
                    (
                        q(
                            f"sum by (tenant, gen_ai_token_type) (increase(gateway_tokens_total{{{NAMESPACE}}}[1d]))",
                            "{{tenant}} {{gen_ai_token_type}}",
                        ),
                    ),
                    "RateLimitedRising",
                    kind="table",
                    span=12,
                ),
                Panel(
                    Text("Requests of the last day", "最近一天请求"),
                    Text("By tenant and outcome.", "按租户与结果统计。"),
                    "short",
                    (
                        q(
                            f"sum by (tenant, outcome) (increase(gateway_tenant_requests_total{{{NAMESPACE}}}[1d]))",
                            "{{tenant}} {{outcome}}",
                        ),
                    ),
                    "RateLimitedRising",
                    kind="table",
                    span=12,
                ),
            ),
        ),
    ),
)
