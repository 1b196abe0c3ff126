"""The verdict on two samples, and the queries in Prometheus' own engine."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from serving.canary import series
from serving.canary.series import Limits, Sample

BEFORE = Sample(requests=1000, error_rate=0.001, p99_s=2.0)


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (Sample(100, 0.0, 2.1), BEFORE, []),
        (Sample(100, 0.0, 2.9), BEFORE, []),
        (Sample(100, 0.0, 3.1), BEFORE, ["P99 is 3.10 s, 2.00 s before"]),
        (Sample(100, 0.05, 2.0), BEFORE, ["5.0% of 100 requests failed, 0.1% before"]),
        (Sample(100, 0.05, 9.0), BEFORE, ["5.0% of 100 requests failed, 0.1% before", "P99 is 9.00 s, 2.00 s before"]),
        (Sample(100, 0.4, 9.0), Sample(1000, 0.39, 9.0), []),
        (Sample(100, 0.0, 0.5), Sample(1000, 0.0, 0.1), []),
        (Sample(5, 1.0, 60.0), BEFORE, []),
        (Sample(100, 0.0, 60.0), None, []),
        (Sample(100, 0.03, None), None, ["3.0% of 100 requests failed, 0.0% before"]),
        (Sample(100, 0.03, 9.0), Sample(3, 1.0, 0.1), ["3.0% of 100 requests failed, 0.0% before"]),
        (Sample(100, 0.0, None), BEFORE, []),
    ],
)
def test_a_release_is_worse_by_more_than_chance_or_not_at_all(now, before, said):
    assert list(series.worse(now, before)) == said


def test_the_limits_can_be_tightened():
    assert list(series.worse(Sample(10, 0.0, 2.2), BEFORE, Limits(p99_factor=1.0, p99_slack_s=0.1, least_requests=5)))


def promtool(tmp_path, queries, inputs):
    tool = shutil.which("promtool")
    assert tool, "promtool is not installed: run make system"
    (tmp_path / "rules.yaml").write_text("groups: []")
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in inputs.items()],
                "promql_expr_test": [
                    {"expr": expr, "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": value}]}
                    for expr, value in queries
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(json.dumps(test))
    return subprocess.run(
        [tool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("selector", ["", 'namespace="prod"'])
def test_the_queries_say_what_they_mean_in_prometheus_own_engine(tmp_path, selector):
    chat = 'operation="/v1/chat/completions",namespace="prod"'
    inputs = {
        f'gateway_requests_total{{{chat},status="200",cache="miss"}}': "0+9x60",
        f'gateway_requests_total{{{chat},status="503",cache="none"}}': "0+1x60",
        f'gateway_request_duration_seconds_bucket{{{chat},le="1"}}': "0+5x60",
        f'gateway_request_duration_seconds_bucket{{{chat},le="2"}}': "0+10x60",
        f'gateway_request_duration_seconds_bucket{{{chat},le="+Inf"}}': "0+10x60",
        # Another operation's, which is quick and would hide a slow answer.
        'gateway_request_duration_seconds_bucket{operation="/v1/models",namespace="prod",le="1"}': "0+99x60",
        'gateway_request_duration_seconds_bucket{operation="/v1/models",namespace="prod",le="+Inf"}': "0+99x60",
    }
    if selector:  # a neighbour in another namespace does not count
        inputs['gateway_requests_total{namespace="staging",status="500"}'] = "0+50x60"
    words = {"selector": selector, "comma": "," if selector else "", "window": "300s"}
    queries = [
        (series.REQUESTS.format(**words), 200),
        (series.ERRORS.format(**words), 20),
        (series.P99.format(**words), 1.98),
    ]
    done = promtool(tmp_path, queries, inputs)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_error_at_all_is_zero_and_not_nothing(tmp_path):
    errors = series.ERRORS.format(selector="", comma="", window="300s")
    done = promtool(tmp_path, [(errors, 0)], {'gateway_requests_total{status="200"}': "0+9x60"})
    assert done.returncode == 0, done.stdout + done.stderr
