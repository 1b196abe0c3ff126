"""The benchmark measures what it says: pictures that differ, requests that arrive, goals that can be missed."""

from __future__ import annotations

import asyncio
from itertools import islice

import pytest

from gateway.images import digest, inspect, shrink
from loadtest import bench_images
from loadtest.images.photos import small_pictures, variants
from loadtest.images.rates import Rates, body, rate
from loadtest.images.shrinkers import by_libvips, by_pillow, times_ms
from loadtest.images.stack import Side
from tests.support.photographs import twelve_megapixels
from tests.unit.gateway.images.samples import difference, pixels


def test_variants_of_a_photograph_differ_after_shrinking_too():
    photo = twelve_megapixels(1)
    shrunk = [by_libvips(jpeg) for jpeg in islice(variants(photo), 12)]
    assert len({digest(data) for data in shrunk}) == 12
    assert max(difference(pixels(shrunk[0]), pixels(data)) for data in shrunk) < 10


def test_small_pictures_differ_and_are_handed_on_untouched():
    pictures = list(islice(small_pictures(), 300))
    assert len(set(pictures)) == 300
    for data in pictures[::50]:
        assert shrink(data, inspect(data, max_pixels=10**6), max_pixels=512 * 512).data is data


def test_all_ways_of_shrinking_give_the_same_picture():
    photo = twelve_megapixels(2)
    ours = pixels(by_libvips(photo))
    for draft in (False, True):
        assert difference(ours, pixels(by_pillow(photo, draft=draft))) < 2
    assert times_ms([photo], rounds=1)["libvips (the gateway)"] > 0


async def test_the_client_counts_only_answers_that_are_right(gateway, engine):
    side = Side("gateway", gateway.url, gateway.headers["authorization"].removeprefix("Bearer "))
    bodies = [body(data, "What?") for data in islice(small_pictures(), 12)]
    assert await rate(side, bodies, clients=4) > 0
    assert len(engine.requests) == 12
    with pytest.raises(ExceptionGroup) as caught:
        await rate(Side("direct", gateway.url, "sk-wrong"), bodies)
    assert "401" in str(caught.value.exceptions[0])
    await asyncio.sleep(0)


def test_a_missed_goal_is_said_and_told_by_the_exit_code(monkeypatch, capsys):
    assert Rates([2.0, 4.0, 100.0], [8.0, 10.0, 1.0]).ratio == 2.5
    assert bench_images.verdict("speed", 2.0, 2.5, at_least=True, unit="x") is False
    assert "MISS speed: 2.00x (goal: at least 2.5x)" in capsys.readouterr().out
    for met, code in ((True, 0), (False, 1)):
        monkeypatch.setattr(bench_images, "shrink_part", lambda met=met: met)
        assert bench_images.main(["--only", "shrink"]) == code
