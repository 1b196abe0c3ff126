from __future__ import annotations

import io

from PIL import Image

from gateway.prometheus_api import Series
from gateway.report import PLOTS, curves, page, summary
from gateway.report_plots import png

NOTHING = [Series({}, ((0.0, float("nan")),))]


def test_an_odd_number_of_plots_and_one_without_data_are_drawn():
    plots = [(PLOTS[0], [("200", Series({}, ((0.0, 1.0), (60.0, 2.0))))]), (PLOTS[1], []), (PLOTS[2], [])]
    assert Image.open(io.BytesIO(png("Title", plots, 0.0, 60.0))).format == "PNG"


def test_series_are_called_by_their_label_or_by_their_name():
    def ask(expr):
        return [Series({"status": "200"} if "by (status)" in expr else {}, ((0.0, 1.0),))]

    assert [name for name, _ in curves(PLOTS[0], ask, 60)] == ["200"]
    assert [name for name, _ in curves(PLOTS[2], ask, 60)] == ["P50", "P95", "P99"]


def test_figures_without_data_are_dashes():
    assert {value for _, value in summary(lambda _: [], 3600)} == {"-"}
    assert {value for _, value in summary(lambda _: NOTHING, 3600)} == {"-"}


def test_a_page_escapes_what_comes_from_labels():
    assert "<b>" not in page("<b>", [("<b>", "<b>")], b"")
