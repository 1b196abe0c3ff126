"""The first look: is it well, since when not, and which part is it."""

from helm.observability.model import GATEWAY_ENGINE, MODEL, NAMESPACE, Board, Panel, Row, Text, q, quantiles

SLOW = f'{NAMESPACE}, cache!="hit"'

OVERVIEW = Board(
    uid="qwen3vl-overview",
    title=Text("Qwen3-VL / Overview", "Qwen3-VL / 总览"),
    description="Is the service well, since when not, and which part is it. Blue lines are deploys.",
    engine_values='label_values(gateway_engine_up{namespace=~"$namespace"}, engine)',
    rows=(
        Row(
            Text("Objectives", "服务目标"),
            (
                Panel(
                    Text("Availability, 1 day", "可用性，1 天"),
                    "Share of requests that did not fail by a fault of ours (overload, engine, gateway). Objective: 99.9 %.",
                    "percentunit",
                    (q(f"1 - slo:availability:error_ratio_rate1d{{{NAMESPACE}}}"),),
                    "AvailabilityBudgetBurnFast",
                    warn=0.9995,
                    bad=0.999,
                    kind="stat",
                    span=4,
                ),
                Panel(
                    Text("First token in 2.5 s, 1 day", "2.5 秒内首 token，1 天"),
                    "Share of streams whose first token came within 2.5 s; kept answers do not count. Objective: 95 %.",
                    "percentunit",
                    (q(f"1 - slo:first_token:slow_ratio_rate1d{{{NAMESPACE}}}"),),
                    "FirstTokenBudgetBurnFast",
                    warn=0.97,
                    bad=0.95,
                    kind="stat",
                    span=4,
                ),
                Panel(
                    Text("Engines up", "可用引擎"),
                    "Share of the engines that generate when asked to.",
                    "percentunit",
                    (q(f"avg(gateway_engine_up{{{GATEWAY_ENGINE}}})", "up"),),
                    "EngineDown",
                    warn=1,
                    bad=0.5,
                    kind="stat",
                    span=4,
                ),
                Panel(
                    Text("Requests now", "当前请求"),
                    "Requests being answered at this moment, at an engine or before it.",
                    "short",
                    (q(f"sum(gateway_in_flight_requests{{{NAMESPACE}}})", "in flight"),),
                    "QueueGrowing",
                    kind="stat",
                    span=4,
                ),
                Panel(
                    Text("Versions", "版本"),
                    "What runs: the gateway's version and commit, the weights' revision. Two rows: a rollout is under way.",
                    "short",
                    (
                        q(
                            f"count by (version, revision, model_revision) (gateway_build_info{{{NAMESPACE}}})",
                            "{{version}} {{revision}} {{model_revision}}",
                        ),
                    ),
                    "DeployFailed",
                    kind="table",
                    span=8,
                ),
            ),
        ),
        Row(
            Text("Burn of the budgets", "错误预算消耗"),
            (
                Panel(
                    Text("Availability budget burn", "可用性预算消耗"),
                    "How many times faster than allowed the error budget goes; 1 spends it in 30 days, 14.4 pages.",
                    "none",
                    (
                        q(f"slo:availability:error_ratio_rate5m{{{NAMESPACE}}} / 0.001", "5 min"),
                        q(f"slo:availability:error_ratio_rate1h{{{NAMESPACE}}} / 0.001", "1 h"),
                        q(f"slo:availability:error_ratio_rate6h{{{NAMESPACE}}} / 0.001", "6 h"),
                    ),
                    "AvailabilityBudgetBurnFast",
                    warn=6,
                    bad=14.4,
                    span=12,
                ),
                Panel(
                    Text("First token budget burn", "首 token 预算消耗"),
                    "The same for streams whose first token took more than 2.5 s.",
                    "none",
                    (
                        q(f"slo:first_token:slow_ratio_rate5m{{{NAMESPACE}}} / 0.05", "5 min"),
                        q(f"slo:first_token:slow_ratio_rate1h{{{NAMESPACE}}} / 0.05", "1 h"),
                        q(f"slo:first_token:slow_ratio_rate6h{{{NAMESPACE}}} / 0.05", "6 h"),
                    ),
                    "FirstTokenBudgetBurnFast",
                    warn=6,
                    bad=14.4,
                    span=12,
                ),
            ),
        ),
        Row(
            Text("Traffic and errors", "流量与错误"),
            (
                Panel(
                    Text("Requests", "请求"),
                    "Requests a second by status; 499 is a client that left.",
                    "reqps",
                    (
                        q(
                            f"sum by (status) (rate(gateway_requests_total{{{NAMESPACE}}}[$__rate_interval]))",
                            "{{status}}",
                        ),
                    ),
                    "NoTraffic",
                    stacked=True,
                ),
                Panel(
                    Text("Errors by whose fault and cause", "错误：责任方与原因"),
                    "The cause names the part: engine_*, queue_*, internal_error are ours; client and limit are not.",
                    "reqps",
                    (
                        q(
                            f"""sum by (error_class, error_type)
                            (rate(gateway_request_errors_total{{{NAMESPACE}}}[$__rate_interval]))""",
                            "{{error_class}}: {{error_type}}",
                        ),
                        q(
                            f"""sum by (error_type) (rate(gateway_streams_broken_total{{{NAMESPACE}}}[$__rate_interval]))""",
                            "broken stream: {{error_type}}",
                        ),
                    ),
                    "AvailabilityBudgetBurnFast",
                    stacked=True,
                ),
                Panel(
                    Text("Kept answers", "缓存命中"),
                    "Share of requests answered without an engine; a fall moves load to the engines.",
                    "percentunit",
                    (
                        q(
                            f"""sum(rate(gateway_requests_total{{{NAMESPACE}, cache="hit"}}[$__rate_interval]))
                            / sum(rate(gateway_requests_total{{{NAMESPACE}}}[$__rate_interval]))""",
                            "hit",
                        ),
                    ),
                    "CacheDown",
                ),
            ),
        ),
        Row(
            Text("Latency", "延迟"),
            (
                Panel(
                    Text("Whole answer", "完整回答"),
                    "Time to the last byte. A step beside a blue line: that deploy made it.",
                    "s",
                    quantiles("gen_ai_server_request_duration_seconds", NAMESPACE),
                    "FirstTokenBudgetBurnFast",
                ),
                Panel(
                    Text("First token", "首 token"),
                    "Time to the first event of streams that an engine answered. The objective is 2.5 s.",
                    "s",
                    quantiles("gen_ai_server_time_to_first_token_seconds", SLOW),
                    "FirstTokenBudgetBurnFast",
                    warn=1.5,
                    bad=2.5,
                ),
                Panel(
                    Text("P95 of each step", "各步骤 P95"),
                    "The step that grew is the cause: fetch is an image host, decode and encode our CPU, queue too few engines, engine vLLM.",
                    "s",
                    (
                        q(
                            f"""histogram_quantile(0.95, sum by (le, step)
                            (rate(gateway_step_duration_seconds_bucket{{{NAMESPACE}}}[$__rate_interval])))""",
                            "{{step}}",
                        ),
                    ),
                    "FirstTokenBudgetBurnFast",
                ),
            ),
        ),
        Row(
            Text("Saturation", "饱和度"),
            (
                Panel(
                    Text("Waiting", "排队"),
                    "Requests in the gateway's queue and in vLLM's. Rising: too few engines for the load.",
                    "short",
                    (
                        q(f"sum(gateway_queue_depth{{{NAMESPACE}}})", "gateway"),
                        q(f"sum(vllm:num_requests_waiting{{{MODEL}}})", "vLLM"),
                    ),
                    "QueueGrowing",
                    warn=10,
                    bad=50,
                ),
                Panel(
                    Text("KV cache in use", "KV 缓存占用"),
                    "Near 1 vLLM preempts requests and latency rises for all.",
                    "percentunit",
                    (q(f"max by (instance) (vllm:kv_cache_usage_perc{{{MODEL}}})", "{{instance}}"),),
                    "EngineKVCacheFull",
                    warn=0.8,
                    bad=0.95,
                ),
                Panel(
                    Text("Each engine", "各引擎"),
                    "1: generates. 0: taken out by the gateway's probe, because it hangs or is gone.",
                    "short",
                    (q(f"min by (engine) (gateway_engine_up{{{GATEWAY_ENGINE}}})", "{{engine}}"),),
                    "EngineDown",
                    warn=1,
                    bad=0.5,
                ),
            ),
        ),
    ),
)
