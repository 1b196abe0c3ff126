"""`gateway report` and `gateway top`, of a running gateway and a real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math

import pytest
import pytest_asyncio
from PIL import Image

from gateway.__main__ import main
from gateway.prometheus_api import Prometheus, PrometheusError
from tests.support.engine import DONE, ScriptedEngine, chunk, stream
from tests.support.pictures import data_url, png, question
from tests.support.processes import GatewayProcess
from tests.support.prometheus import scraping

CHAT = "/v1/chat/completions"


ONE_LOOP = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory):
    """A gateway with some traffic, and the Prometheus that has seen it: one pair for all, as nobody changes them."""
    folder = tmp_path_factory.mktemp("watched")

    async def script(request, _):
        return await stream(request, [chunk("a"), chunk("b"), DONE])

    async with (
        contextlib.AsyncExitStack() as held,
        GatewayProcess(folder, (engine := await scripted(held)).url) as gateway,
        scraping(folder, {"gateway": gateway.metrics_port}) as (url, prometheus),
    ):
        for number in range(4):
            await gateway.http.post(CHAT, json=question(data_url(png()), str(number)))
        engine.script = script
        await gateway.http.post(CHAT, json=question(data_url(png()), "streamed", stream=True))
        expr = "increase(gateway_step_duration_seconds_count[1m]) > 0 and on () gateway_requests_total"
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(prometheus.query, expr):
                await gateway.http.post(CHAT, json=question(data_url(png()), "kept"))
                await asyncio.sleep(0.2)
        yield gateway, url, prometheus


async def scripted(held):
    engine = await ScriptedEngine().start()
    held.push_async_callback(engine.stop)
    return engine


@ONE_LOOP
async def test_the_page_and_the_picture_have_the_figures_and_the_plots(watched, tmp_path, capsys):
    _, url, _ = watched
    out = tmp_path / "report.html"
    assert await asyncio.to_thread(main, ["report", "--since", "5m", "--prometheus", url, "--out", str(out)]) == 0
    text = out.read_text()
    assert "<th>Requests</th>" in text
    assert "data:image/png;base64," in text
    assert "<script" not in text
    assert "12 plots of 5m" in capsys.readouterr().out
    out = tmp_path / "report.png"
    assert await asyncio.to_thread(main, ["report", "--since", "1h", "--prometheus", url, "--out", str(out)]) == 0
    picture = Image.open(io.BytesIO(out.read_bytes()))
    assert picture.format == "PNG"
    assert min(picture.size) > 1000


@ONE_LOOP
async def test_top_shows_the_engine_and_the_steps(watched, capsys):
    gateway, _, _ = watched
    metrics = f"http://127.0.0.1:{gateway.metrics_port}/metrics"

    async def traffic():
        while True:
            await gateway.http.post(CHAT, json=question(data_url(png()), "kept"))
            await asyncio.sleep(0.02)

    busy = asyncio.create_task(traffic())
    code = await asyncio.to_thread(main, ["top", "--metrics", metrics, "--interval", "0.5", "--once"])
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    shown = capsys.readouterr().out
    assert code == 0
    for words in ("requests", "up", "whole answer", "auth", "tenant", "one"):
        assert words in shown


@ONE_LOOP
async def test_prometheus_answers_and_refuses_are_read(watched):
    _, _, prometheus = watched
    with pytest.raises(PrometheusError, match="parse error"):
        await asyncio.to_thread(prometheus.query, "sum(")
    [now] = await asyncio.to_thread(prometheus.query, "gateway_workers")
    assert now.last == 1
    at_s = now.points[0][0]
    [then] = await asyncio.to_thread(prometheus.query_range, "gateway_workers", at_s - 2, at_s, 1)
    assert [value for _, value in then.points] == [1] * len(then.points)
    [never] = await asyncio.to_thread(prometheus.query, "gateway_key_next_expiry_timestamp_seconds")
    assert math.isinf(never.last)
    assert prometheus.firing() == set()


class TestFaults:
    def test_no_prometheus_is_one_line(self, capsys):
        assert main(["report", "--prometheus", "http://127.0.0.1:9"]) == 1
        assert "does not answer" in capsys.readouterr().err

    def test_something_else_than_a_url_is_one_line(self, capsys):
        assert main(["report", "--prometheus", "file:///etc/passwd"]) == 1
        assert "no http(s) URL" in capsys.readouterr().err

    @pytest.mark.parametrize("words", [["--since", "yesterday"], ["--since", "0h"], ["--out", "report.pdf"]])
    def test_a_wrong_argument_is_exit_2(self, words, capsys):
        assert main(["report", *words]) == 2
        assert "--since is like" in capsys.readouterr().err

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9/metrics", "file:///etc/passwd"])
    def test_top_without_a_gateway_is_one_line(self, url, capsys):
        assert main(["top", "--metrics", url, "--once"]) == 1
        assert "cannot be read" in capsys.readouterr().err

    def test_an_answer_that_is_not_prometheus_is_told(self):
        with pytest.raises(PrometheusError, match="no http"):
            Prometheus("ftp://x")

    def test_a_missing_matplotlib_is_told(self, monkeypatch, capsys):
        monkeypatch.setitem(__import__("sys").modules, "gateway.report_plots", None)
        assert main(["report"]) == 69
        assert "qwen3-vl-stack[report]" in capsys.readouterr().err
