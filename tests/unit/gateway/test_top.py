from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from gateway.__main__ import main
from gateway.top import Look, quantile, view
from gateway.top_screen import screen, seconds


def look(at_s, requests, buckets=(0, 0), engine_up=1):
    inner, all_ = buckets
    text = f"""
# TYPE gateway_requests_total counter
gateway_requests_total{{cache="hit",status="200"}} {requests}
gateway_requests_total{{cache="miss",status="200"}} {3 * requests}
# TYPE gateway_request_errors_total counter
gateway_request_errors_total{{error_class="engine",error_type="engine_timeout"}} {requests}
gateway_request_errors_total{{error_class="client",error_type="invalid_request"}} 0
# TYPE gen_ai_server_request_duration_seconds histogram
gen_ai_server_request_duration_seconds_bucket{{le="1.0"}} {inner}
gen_ai_server_request_duration_seconds_bucket{{le="2.0"}} {all_}
gen_ai_server_request_duration_seconds_bucket{{le="+Inf"}} {all_}
# TYPE gateway_engine_up gauge
gateway_engine_up{{engine="http://a"}} {engine_up}
gateway_engine_up{{engine="http://b"}} 1
# TYPE gateway_queue_depth gauge
gateway_queue_depth{{priority="bulk"}} 3
gateway_queue_depth{{priority="default"}} 0
"""
    return Look.of(text, at_s)


def test_rates_are_what_happened_between_two_looks():
    shown = view(look(10, 100), look(12, 110))
    assert shown.requests == pytest.approx(20)
    assert shown.hits == pytest.approx(0.25)
    assert shown.errors == {"engine": pytest.approx(5)}


def test_a_gateway_that_started_anew_gives_no_negative_rate():
    assert view(look(10, 100), look(12, 1)).requests == 0


def test_latencies_are_those_between_two_looks():
    shown = view(look(10, 1, (1000, 1000)), look(12, 1, (1000, 1100)))
    assert shown.answer_s == (pytest.approx(1.5), pytest.approx(1.95), pytest.approx(1.99))
    assert shown.first_token_s == (None, None, None)


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ([], 0.5, None),
        ([(1.0, 0.0), (float("inf"), 0.0)], 0.5, None),
        ([(1.0, 4.0), (float("inf"), 4.0)], 0.5, 0.5),
        ([(1.0, 1.0), (2.0, 1.0), (float("inf"), 4.0)], 0.99, 2.0),
        ([(1.0, 0.0), (2.0, 4.0)], 0.0, 1.0),
    ],
)
def test_quantiles_are_prometheus_own(buckets, share, value):
    assert quantile(buckets, share) == value


def test_the_screen_names_an_engine_that_is_out_and_those_who_wait():
    console = Console(width=120, record=True)
    console.print(screen(view(look(10, 1), look(12, 2, (1, 1), engine_up=0)), "here"))
    text = console.export_text()
    for words in ("OUT", "http://a", "bulk 3", "engine errors", "whole answer"):
        assert words in text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0123, "12 ms"), (2.51, "2.5 s")])
def test_durations_are_read_at_a_glance(value, text):
    assert seconds(value) == text


def test_it_goes_on_until_one_has_seen_enough(monkeypatch, capsys):
    moments = iter(range(10))
    sleeps = iter([None, None, KeyboardInterrupt])

    def sleep(_):
        if fault := next(sleeps):
            raise fault

    monkeypatch.setattr("gateway.top_cli.look", lambda _url: look(next(moments), 5))
    monkeypatch.setattr("gateway.top_cli.time.sleep", sleep)
    assert main(["top"]) == 0
    assert "http://a" in capsys.readouterr().out
    assert next(moments) == 3


def test_the_other_commands_load_neither_rich_nor_prometheus():
    code = "import sys, gateway.__main__; sys.exit(any(name in sys.modules for name in ('rich', 'prometheus_client')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_screen_as_a_picture_fetches_nothing(monkeypatch, tmp_path, capsys):
    moments = iter([look(10, 1), look(12, 2, (1, 1), engine_up=0)])
    monkeypatch.setattr("gateway.top_cli.look", lambda _url: next(moments))
    out = tmp_path / "top.svg"
    assert main(["top", "--svg", str(out), "--interval", "0"]) == 0
    assert capsys.readouterr().out == ""
    drawn = ET.fromstring(out.read_text())
    text = "".join(drawn.itertext()).replace("\xa0", " ")
    for words in ("OUT", "http://a", "whole answer"):
        assert words in text
    assert "url(http" not in out.read_text().replace('"', "")
