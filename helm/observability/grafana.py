"""Boards to Grafana's JSON, by Grafana's own foundation SDK: its types are the schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common as common_build
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from helm.observability.model import Board, Language, Panel

Variable = build.QueryVariable | build.TextBoxVariable | build.DatasourceVariable

RUNBOOKS = "https://github.com/qwen3-vl-stack/qwen3-vl-stack/blob/main/docs/runbooks"
"""Default of the variable `runbooks`, and what alerts link to; a fork sets its own."""
GREEN, YELLOW, RED = "green", "yellow", "red"
HEIGHT = 8
STAT_HEIGHT = 4
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

REVISIONS = """
count by (version, revision, model_revision) (gateway_build_info{namespace=~"$namespace"})
unless count by (version, revision, model_revision) (gateway_build_info{namespace=~"$namespace"} offset 2m)
"""

HOST_DEPLOYS = """
max by (kind, result, version) (
  qwen3vl_host_deploy_last_end_timestamp_seconds{namespace=~"$namespace|"} > time() - 120
)
"""
"""Failed ones too, of which `REVISIONS` shows nothing; node_exporter knows no namespace."""

LABELS = {
    "datasource": ("Data source", "数据源"),
    "namespace": ("Namespace", "命名空间"),
    "model": ("Model", "模型"),
    "engine": ("Engine", "引擎"),
    "plan": ("Planned requests/s per engine", "每引擎计划请求数/秒"),
    "runbooks": ("Runbooks", "运维手册"),
    "deploys": ("Deploys", "部署"),
    "host deploys": ("Deploys of hosts", "主机部署"),
    "runbook": ("Runbook", "运维手册"),
}


def label(name: str, language: Language) -> str:
    """A fixed word of every board."""
    return LABELS[name][language == "zh"]


def board_json(board: Board, language: Language) -> str:
    """The board as the file that Grafana provisions."""
    made = (
        build.Dashboard(board.title.of(language))
        .uid(board.uid if language == "en" else f"{board.uid}-zh")
        .description(board.description.of(language))
        .tags([*board.tags])
        .editable()
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("Qwen3-VL")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([*board.tags])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(annotation("deploys", "blue", REVISIONS, language))
        .annotation(annotation("host deploys", "purple", HOST_DEPLOYS, language))
    )
    for variable in variables(board, language):
        made = made.with_variable(variable)
    number = 0
    for row in board.rows:
        number += 1
        made = made.with_row(build.Row(row.title.of(language)).id(number))
        for panel in row.panels:
            number += 1
            made = made.with_panel(panel_of(panel, number, language))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def annotation(name: str, colour: str, expr: str, language: Language) -> build.AnnotationQuery:
    """Vertical lines on every panel: a change and a step in P99 stand side by side."""
    return (
        build.AnnotationQuery()
        .name(label(name, language))
        .datasource(SOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(" ".join(expr.split()))
    )


def variables(
    board: Board, language: Language
) -> list[build.QueryVariable | build.TextBoxVariable | build.DatasourceVariable]:
    """What the reader chooses."""
    chosen: list[build.QueryVariable | build.TextBoxVariable | build.DatasourceVariable] = [
        build.DatasourceVariable("datasource").label(label("datasource", language)).type("prometheus"),
        choice("namespace", "label_values(gateway_build_info, namespace)", language),
        choice("model", 'label_values(vllm:num_requests_running{namespace=~"$namespace"}, model_name)', language),
        choice("engine", board.engine_values, language),
        build.TextBoxVariable("runbooks")
        .label(label("runbooks", language))
        .default_value(RUNBOOKS)
        .hide(dashboard.VariableHide.HIDE_VARIABLE),
    ]
    if board.plan:
        # What `python -m serving plan` says for an A10, the weakest GPU that is sized in docs/capacity.md.
        chosen.append(build.TextBoxVariable("plan").label(label("plan", language)).default_value("4.2"))
    return chosen


def choice(name: str, query: str, language: Language) -> build.QueryVariable:
    """Several at once, all of them at first; `.*` also fits series without the label, as on a host."""
    return (
        build.QueryVariable(name)
        .label(label(name, language))
        .datasource(SOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )


def panel_of(panel: Panel, number: int, language: Language) -> timeseries.Panel | stat.Panel | table.Panel:
    """The panel as the SDK builds it."""
    made: timeseries.Panel | stat.Panel | table.Panel
    if panel.kind == "stat":
        made = stat.Panel().reduce_options(common_build.ReduceDataOptions().calcs(["lastNotNull"])).height(STAT_HEIGHT)
        made = made.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.AREA)
    elif panel.kind == "table":
        made = table.Panel().height(HEIGHT)
    else:
        made = timeseries.Panel().height(HEIGHT).line_width(1).fill_opacity(10).show_points(common.VisibilityMode.NEVER)
        made = made.legend(
            common_build.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        if panel.stacked:
            made = made.stacking(common_build.StackingConfig().mode(common.StackingMode.NORMAL))
        if panel.warn is not None or panel.bad is not None:
            made = made.thresholds_style(
                common_build.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED)
            )
    made = (
        made.id(number)
        .title(panel.title.of(language))
        .description(panel.description.of(language))
        .datasource(SOURCE)
        .span(panel.span)
        .unit(panel.unit)
        .thresholds(build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps(panel)))
        .links(
            [
                build.DashboardLink(label("runbook", language))
                .type(dashboard.DashboardLinkType.LINK)
                .url(f"${{runbooks}}/{panel.runbook}.md")
                .target_blank(True)
            ]
        )
    )
    for index, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + index))
        if panel.kind == "table":
            target = target.instant().format(PromQueryFormat.TABLE)
        made = made.with_target(target)
    return made


def steps(panel: Panel) -> list[dashboard.Threshold]:
    """Green to yellow to red, or the other way round where low is bad."""
    if panel.warn is None and panel.bad is None:
        return [dashboard.Threshold(value=None, color=GREEN)]
    if panel.warn is None or panel.bad is None:
        return [
            dashboard.Threshold(value=None, color=GREEN),
            dashboard.Threshold(value=panel.bad or panel.warn, color=RED),
        ]
    if panel.bad < panel.warn:
        return [
            dashboard.Threshold(value=None, color=RED),
            dashboard.Threshold(value=panel.bad, color=YELLOW),
            dashboard.Threshold(value=panel.warn, color=GREEN),
        ]
    return [
        dashboard.Threshold(value=None, color=GREEN),
        dashboard.Threshold(value=panel.warn, color=YELLOW),
        dashboard.Threshold(value=panel.bad, color=RED),
    ]
