"""The figures in the profiles' comments are those of `serving plan`."""

from __future__ import annotations

import re

import pytest

from serving import profile
from serving.capacity import load, overview

QUESTIONS = dict(overview.questions())
SAID = re.compile(r"max-num-seqs = (\d+) .*about (\d+)k tokens of KV cache / (\d+) = ([\d.]+)k each")


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_cache_that_a_profile_tells_of_is_the_planned_one(name):
    text = (profile.PROFILES_DIR / f"{name}.toml").read_text()
    requests, total_k, divided_by, each_k = SAID.search(text).groups()
    planned = load.kv_capacity(QUESTIONS[name]).logged_tokens
    assert int(total_k) * 1000 == pytest.approx(planned, rel=0.015)
    assert requests == divided_by
    assert float(each_k) == pytest.approx(planned / int(requests) / 1000, abs=0.1)
