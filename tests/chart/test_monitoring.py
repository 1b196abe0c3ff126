"""Monitors, alerts and dashboards: whatever stands in files/ becomes objects, as it is; an empty folder is none."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support import chart

ON = chart.merged(
    chart.PLAIN,
    chart.at("monitoring", {"podMonitors": True, "rules": True, "dashboards": True, "labels": {"release": "kps"}}),
)
RULES = """\
groups:
  - name: gateway
    rules:
      - alert: NoEngine
        expr: sum(gateway_engine_up) == 0
        annotations: {summary: "No engine in {{ $labels.namespace }}"}
"""
DASHBOARD = '{"title": "Überblick", "templating": {"list": []}, "panels": [{"expr": "rate(x{job=\\"$job\\"}[5m])", "legend": "{{pod}}"}]}\n'


@pytest.fixture
def copy(tmp_path):
    """The chart without the contents of files/, which are another matter."""
    shutil.copytree(
        chart.CHART, tmp_path / "chart", ignore=lambda _, names: {"dashboards", "dashboards-zh", "alerts"} & set(names)
    )
    return tmp_path / "chart"


def test_empty_folders_make_nothing(copy):
    manifests = chart.parse(chart.render_text(ON, chart=copy))
    assert chart.kind(manifests, "PrometheusRule") == []
    assert not [one for one in chart.kind(manifests, "ConfigMap") if "dashboard" in one["metadata"]["name"]]


def test_alerts_of_all_files_become_one_rule_with_their_own_templates_left_alone(copy):
    folder = copy / "files" / "alerts"
    folder.mkdir()
    (folder / "a.yaml").write_text(RULES)
    (folder / "b.yaml").write_text(RULES.replace("gateway\n", "other\n", 1))
    (rule,) = chart.kind(chart.parse(chart.render_text(ON, chart=copy)), "PrometheusRule")
    assert [group["name"] for group in rule["spec"]["groups"]] == ["gateway", "other"]
    assert rule["spec"]["groups"][0]["rules"][0]["annotations"]["summary"] == "No engine in {{ $labels.namespace }}"
    assert rule["metadata"]["labels"]["release"] == "kps"


def test_a_dashboard_reaches_grafana_as_it_is(copy):
    folder = copy / "files" / "dashboards"
    folder.mkdir()
    (folder / "Over_view.json").write_text(DASHBOARD)
    dashboard = chart.only(chart.parse(chart.render_text(ON, chart=copy)), "ConfigMap", "-dashboard-over-view")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"] == {"Over_view.json": DASHBOARD.rstrip("\n")}


@pytest.mark.parametrize("languages", [["en"], ["zh"], ["en", "zh"]])
def test_dashboards_come_in_the_languages_that_were_asked_for(languages):
    values = chart.merged(ON, chart.at("monitoring.dashboardLanguages", languages))
    maps = [one for one in chart.kind(chart.render(values), "ConfigMap") if "-dashboard-" in one["metadata"]["name"]]
    # The sidecar puts all files into one folder.
    names = [name for one in maps for name in one["data"]]
    assert len(names) == len(set(names))
    written = [
        path.read_text().rstrip("\n")
        for language in languages
        for path in (chart.CHART / "files" / {"en": "dashboards", "zh": "dashboards-zh"}[language]).glob("*.json")
    ]
    assert sorted(text for one in maps for text in one["data"].values()) == sorted(written)
    addresses = [json.loads(text)["uid"] for text in written]
    assert len(addresses) == len(set(addresses))


def test_the_gpu_exporters_counters_are_offered_under_both_names():
    counters = (chart.CHART / "files" / "dcgm" / "counters.csv").read_text()
    made = chart.only(chart.plain(chart.at("monitoring.dcgmCounters", True)), "ConfigMap", "-dcgm-counters")
    assert {name: text + "\n" for name, text in made["data"].items()} == {
        "metrics": counters, "dcgm-metrics.csv": counters,
    }  # fmt: skip


def test_monitors_scrape_metrics_ports_of_the_releases_pods_only(copy):
    manifests = chart.parse(chart.render_text(ON, chart=copy))
    monitors = {one["metadata"]["labels"][chart.COMPONENT]: one for one in chart.kind(manifests, "PodMonitor")}
    assert {name: one["spec"]["podMetricsEndpoints"][0]["port"] for name, one in monitors.items()} == {
        "gateway": "metrics",
        "engine": "http",
    }
    for one in monitors.values():
        assert one["metadata"]["labels"]["release"] == "kps"
        assert one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == chart.RELEASE


def test_without_the_operator_nothing_asks_for_it():
    assert not {"PodMonitor", "PrometheusRule", "ScaledObject"} & {one["kind"] for one in chart.plain()}
