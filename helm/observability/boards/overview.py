"""The first look: is it well, since when not, and which part is it."""

from helm.observability.model import GATEWAY_ENGINE, MODEL, NAMESPACE, Board, Panel, Row, Text, q, quantiles

SLOW = f'{NAMESPACE}, cache!="hit"'

OVERVIEW = Board(
    uid="qwen3vl-overview",
    title=Text("Qwen3-VL / Overview", "Qwen3-VL / 总览"),
    description=Text(
        "Is the service well, since when not, and which part is it. Blue lines are deploys, purple ones the ends of deployments of hosts.",
        "服务是否正常、从何时起不正常、问题出在哪一部分。蓝线是部署，紫线是主机部署结束的时刻。",
    ),
    engine_values='label_values(gateway_engine_up{namespace=~"$namespace"}, engine)',
    rows=(
        Row(
            Text("Objectives", "服务目标"),
            (
                Panel(
                    Text("Availability, 1 day", "可用性，1 天"),
                    Text(
                        "Share of requests that did not fail by a fault of ours (overload, engine, gateway). Objective: 99.9 %.",
                        "未因我方原因（过载、引擎、网关）失败的请求占比。目标：99.9 %。",
                    ),
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
                    Text(
                        "Share of streams whose first token came within 2.5 s; kept answers do not count. Objective: 95 %.",
                        "2.5 秒内给出首 token 的流式请求占比，缓存的回答不计。目标：95 %。",
                    ),
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
                    Text("Share of the engines that generate when asked to.", "探测时能够生成 token 的引擎占比。"),
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
                    Text(
                        "Requests being answered at this moment, at an engine or before it.",
                        "此刻正在处理的请求，包括在引擎内和在引擎之前的。",
                    ),
                    "short",
                    (q(f"sum(gateway_in_flight_requests{{{NAMESPACE}}})", "in flight"),),
                    "QueueGrowing",
                    kind="stat",
                    span=4,
                ),
                Panel(
                    Text("Versions", "版本"),
                    Text(
                        "What runs: the gateway's version and commit, the weights' revision. Two rows: a rollout is under way.",
                        "正在运行的内容：网关的版本与提交、权重的版本。出现两行：正在滚动发布。",
                    ),
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
                    Text(
                        "How many times faster than allowed the error budget goes; 1 spends it in 30 days, 14.4 pages.",
                        "错误预算的消耗是允许速度的多少倍；1 表示 30 天用完，14.4 触发紧急告警。",
                    ),
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
                    Text(
                        "The same for streams whose first token took more than 2.5 s.",
                        "同上，针对首 token 超过 2.5 秒的流式请求。",
                    ),
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
                    Text(
                        "Requests a second by status; 499 is a client that left.",
                        "按状态码统计的每秒请求数；499 表示客户端已离开。",
                    ),
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
                    Text(
                        "The cause names the part: engine_*, queue_*, internal_error are ours; client and limit are not.",
                        "原因指明出错的部分：engine_*、queue_*、internal_error 属于我方；client 和 limit 不是。",
                    ),
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
                    Text(
                        "Share of requests answered without an engine; a fall moves load to the engines.",
                        "无需引擎即可回答的请求占比；下降意味着负载转移到引擎。",
                    ),
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
                    Text(
                        "Time to the last byte. A step beside a blue line: that deploy made it.",
                        "到最后一个字节的时间。蓝线旁出现台阶：由那次部署造成。",
                    ),
                    "s",
                    quantiles("gen_ai_server_request_duration_seconds", NAMESPACE),
                    "FirstTokenBudgetBurnFast",
                ),
                Panel(
                    Text("First token", "首 token"),
                    Text(
                        "Time to the first event of streams that an engine answered. The objective is 2.5 s.",
                        "由引擎回答的流式请求给出第一个事件的时间。目标为 2.5 秒。",
                    ),
                    "s",
                    quantiles("gen_ai_server_time_to_first_token_seconds", SLOW),
                    "FirstTokenBudgetBurnFast",
                    warn=1.5,
                    bad=2.5,
                ),
                Panel(
                    Text("P95 of each step", "各步骤 P95"),
                    Text(
                        "The step that grew is the cause: fetch is an image host, decode and encode our CPU, queue too few engines, engine vLLM.",
                        "变长的步骤就是原因：fetch 是图片主机，decode 和 encode 是本机 CPU，queue 是引擎太少，engine 是 vLLM。",
                    ),
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
                    Text(
                        "Requests in the gateway's queue and in vLLM's. Rising: too few engines for the load.",
                        "在网关队列和 vLLM 队列中等待的请求。上升：引擎数量不足以承担负载。",
                    ),
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
                    Text(
                        "Near 1 vLLM preempts requests and latency rises for all.",
                        "接近 1 时 vLLM 会抢占请求，所有请求的延迟都会上升。",
                    ),
                    "percentunit",
                    (q(f"max by (instance) (vllm:kv_cache_usage_perc{{{MODEL}}})", "{{instance}}"),),
                    "EngineKVCacheFull",
                    warn=0.8,
                    bad=0.95,
                ),
                Panel(
                    Text("Each engine", "各引擎"),
                    Text(
                        "1: generates. 0: taken out by the gateway's probe, because it hangs or is gone.",
                        "1：能够生成。0：因挂起或消失而被网关的探测摘除。",
                    ),
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
