"""Who uses how much, and what the caches save."""

from helm.observability.model import MODEL, NAMESPACE, Board, Panel, Row, Text, q


def per_tenant(metric: str, more: str = "") -> str:
    """The rate of a counter by tenant."""
    return f"sum by (tenant) (rate({metric}{{{NAMESPACE}{more}}}[$__rate_interval]))"


TENANTS = Board(
    uid="qwen3vl-tenants",
    title=Text("Qwen3-VL / Tenants and cost", "Qwen3-VL / 租户与成本"),
    description="Requests, tokens and pictures by tenant, and what the caches save. Tenants beyond GATEWAY_METRICS_MAX_TENANTS are `other`.",
    engine_values='label_values(gateway_engine_up{namespace=~"$namespace"}, engine)',
    rows=(
        Row(
            Text("Use", "用量"),
            (
                Panel(
                    Text("Requests", "请求"),
                    "Requests a second of each tenant.",
                    "reqps",
                    (q(per_tenant("gateway_tenant_requests_total"), "{{tenant}}"),),
                    "RateLimitedRising",
                    stacked=True,
                ),
                Panel(
                    Text("Answer tokens", "输出 token"),
                    "Tokens a second that engines generated for each tenant: the dearest kind.",
                    "none",
                    (q(per_tenant("gateway_tokens_total", ', gen_ai_token_type="output"'), "{{tenant}}"),),
                    "RateLimitedRising",
                    stacked=True,
                ),
                Panel(
                    Text("Prompt tokens", "输入 token"),
                    "Tokens a second that engines read for each tenant, pictures included.",
                    "none",
                    (q(per_tenant("gateway_tokens_total", ', gen_ai_token_type="input"'), "{{tenant}}"),),
                    "RateLimitedRising",
                    stacked=True,
                ),
                Panel(
                    Text("Pictures", "图片"),
                    "Pictures a second that engines saw for each tenant.",
                    "cps",
                    (q(per_tenant("gateway_tenant_images_total"), "{{tenant}}"),),
                    "RateLimitedRising",
                    stacked=True,
                ),
                Panel(
                    Text("Picture tokens of prompt tokens", "图片 token 占比"),
                    "How much of what a tenant sends is pictures; a lower `detail` makes it less.",
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
                    "limit: over its limits. client: a fault of its own. The others are ours.",
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
                    "Share of a tenant's requests that cost no engine.",
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
                    "Requests answered from the cache, times the mean length of an answer: tokens a second not generated.",
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
                    "Share of prompt tokens that vLLM's prefix cache saved computing.",
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
                    "For billing by tenant, as far as Prometheus keeps a day; the audit log has the exact records.",
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
                    "By tenant and outcome.",
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
