"""What is said at the start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.serve import LIMITS, limits_counted_apart
from gateway.settings import Settings


def settings(tmp_path, **fields):
    return Settings(keys_file=tmp_path / "k.json", **fields)


def key(**limits):
    return SimpleNamespace(**(dict.fromkeys(LIMITS) | limits))


@pytest.mark.parametrize(
    ("fields", "limits"),
    [({"requests_per_minute": 5}, {}), ({"tokens_per_day": 5}, {}), ({}, {"concurrent_requests": 1})],
)
def test_limits_of_several_workers_without_redis_are_warned_of(tmp_path, fields, limits):
    advice = limits_counted_apart(settings(tmp_path, workers=3, **fields), [key(), key(**limits)])
    assert "3 times" in advice
    assert "GATEWAY_REDIS_URL" in advice


@pytest.mark.parametrize(
    "fields",
    [
        {"workers": 1, "requests_per_minute": 5},
        {"workers": 3, "requests_per_minute": 5, "redis_url": "redis://127.0.0.1"},
        {"workers": 3},
    ],
)
def test_where_they_hold_nothing_is_said(tmp_path, fields):
    assert limits_counted_apart(settings(tmp_path, **fields), [key()]) is None
