"""The benchmark asks what it says it asks; its figures are nobody's business here."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from loadtest import bench_hot_path as bench


@pytest.mark.parametrize("kind", bench.KINDS)
async def test_every_kind_is_answered_and_takes_time(kind, monkeypatch):
    monkeypatch.setattr(bench, "BATCHES", 1)
    assert await bench.measure(kind, 3) > 0


async def test_a_refused_question_gives_no_figure(monkeypatch):
    monkeypatch.setattr(bench, "KEY", "sk-other")
    settings = bench.settings_in

    def with_another_key(folder: Path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench, "KEY", "sk-bench")
            return settings(folder)

    monkeypatch.setattr(bench, "settings_in", with_another_key)
    with pytest.raises(SystemExit, match="401"):
        await bench.measure("miss", 1)


async def test_hits_come_from_the_cache_and_misses_do_not(monkeypatch):
    asked = []
    send = bench.InstantClient.send

    async def counted(self, *request):
        asked.append(request)
        return await send(self, *request)

    monkeypatch.setattr(bench.InstantClient, "send", counted)
    with tempfile.TemporaryDirectory() as folder:
        app = bench.create_app(bench.settings_in(Path(folder)), client=bench.InstantClient())
        async with app.router.lifespan_context(app):
            head = bench.head_of_connection()
            for kind, engine_asked in (("hit", 64), ("miss", 64 + 100), ("hit", 64 + 100)):
                for number in range(100):
                    await bench.ask(app, head, bench.body_of(kind, number + (1000 if kind == "miss" else 0)))
                assert len(asked) == engine_asked
