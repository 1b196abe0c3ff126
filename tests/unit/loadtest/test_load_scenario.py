from __future__ import annotations

import copy
import tomllib

import pytest

from loadtest.load import plan, scenario
from loadtest.load.scenario import Changes, Phase, ScenarioError

GOOD = tomllib.loads("""
title = "t"
phases = [{ lasts_s = 10, per_s = 2 }, { lasts_s = 10, per_s = 6 }]
[[traffic]]
name = "a"
[[traffic]]
name = "b"
share = 3
streamed = 0
[[slo]]
of = "ttft_s"
percentile = 95
most = 1
traffic = "a"
""")


@pytest.mark.parametrize("name", scenario.names())
def test_every_scenario_can_be_read_and_sent_to_a_worker(name):
    read = scenario.load(name)
    assert scenario.parse(scenario.dump(read)) == read


def test_the_scenarios_that_were_asked_for_are_there():
    wanted = {"steady", "burst", "ramp", "soak", "cache-heavy", "photo-heavy", "batch-beside-interactive"}
    assert wanted <= set(scenario.names())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"phases": []}, "either phases or a ramp"),
        ({"ramp": {}}, "either phases or a ramp"),
        ({"phases": [{"lasts_s": 0, "per_s": 1}]}, "longer than 0 s"),
        ({"phases": [{"lasts_s": 1, "per_s": 0}]}, "no phase has any requests"),
        ({"phases": [], "ramp": {"factor": 1}}, "factor > 1"),
        ({"traffic": [], "slo": []}, "no traffic"),
        ({"traffic": [{"name": "a", "share": 0}]}, "traffic a: share"),
        ({"traffic": [{"name": "a", "kinds": ["chat"]}]}, "about a picture"),
        ({"traffic": [{"name": "a", "products": 4}]}, "1 to 3 products"),
        ({"traffic": [{"name": "a", "streamed": 2}]}, "streamed is a share"),
        ({"traffic": [{"name": "b"}]}, "traffic a, which there is not"),
        ({"slo": [{"of": "ttft_s", "most": 1}]}, "a latency has a percentile"),
        ({"slo": [{"of": "errors", "most": 1, "percentile": 95}]}, "a share has none"),
        ({"slo": [{"of": "speed", "most": 1}]}, "Invalid enum value"),
        ({"sloo": []}, "unknown field `sloo`"),
    ],
)
def test_a_fault_is_one_sentence_that_names_it(change, says):
    with pytest.raises(ScenarioError, match=says):
        scenario.parse({**copy.deepcopy(GOOD), **change})


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(ScenarioError, match=r"no scenario stedy: it is one of .*steady"):
        scenario.load("stedy")


def test_a_file_that_is_no_toml_says_where(tmp_path):
    (tmp_path / "x.toml").write_text("title = ")
    with pytest.raises(ScenarioError, match=r"x\.toml: Invalid value"):
        scenario.load(str(tmp_path / "x.toml"))


def test_another_rate_and_duration_keep_the_shape():
    burst = scenario.load("burst")
    changed = scenario.load("burst", Changes(per_s=1.0, lasts_s=6.0))
    assert sum(phase.lasts_s for phase in changed.phases) == pytest.approx(6)
    assert sum(phase.lasts_s * phase.per_s for phase in changed.phases) == pytest.approx(6)
    assert changed.phases[1].per_s / changed.phases[0].per_s == pytest.approx(
        burst.phases[1].per_s / burst.phases[0].per_s
    )


def test_a_ramp_takes_another_first_rate_and_no_duration():
    assert scenario.load("ramp", Changes(per_s=9)).ramp.first_per_s == 9
    with pytest.raises(ScenarioError, match="leave the duration out"):
        scenario.load("ramp", Changes(lasts_s=9))


def test_what_every_run_must_hold_can_be_loosened_by_the_file_only_by_name():
    usual = scenario.parse(GOOD)
    assert {each.of for each in usual.objectives} == {"errors", "wrong", "changed", "lateness_s", "ttft_s"}
    loose = scenario.parse({**GOOD, "slo": [{"of": "errors", "most": 0.5}]})
    assert [each.most for each in loose.objectives if each.of == "errors"] == [0.5]


def test_equal_seeds_give_equal_plans_and_others_do_not():
    read = scenario.parse(GOOD)
    assert plan.requests(read.phases, read.traffic, "1/0") == plan.requests(read.phases, read.traffic, "1/0")
    assert plan.requests(read.phases, read.traffic, "1/0") != plan.requests(read.phases, read.traffic, "1/1")


def test_generators_share_a_plan_without_loss_or_double():
    read = scenario.parse(GOOD)
    whole = plan.requests(read.phases, read.traffic, "1/0")
    parts = [plan.share_of(whole, share, 3) for share in range(3)]
    assert sorted((one for part in parts for one in part), key=lambda one: one.number) == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_plan_has_the_rates_shares_and_mixes_that_were_asked_for():
    read = scenario.parse(
        GOOD
        | {
            "traffic": [
                {"name": "a", "earlier_turns": [1, 1], "max_tokens": [{"tokens": 5, "share": 3}, {"tokens": 9}]},
                {"name": "b", "share": 3, "streamed": 0.0, "popularity": 1.0},
            ],
        }
    )
    planned = plan.requests([Phase(1000, 2), Phase(1000, 6)], read.traffic, "s")
    early = sum(one.at_s < 1000 for one in planned)
    assert early == pytest.approx(2000, rel=0.1)
    assert len(planned) - early == pytest.approx(6000, rel=0.1)
    first = [one for one in planned if one.traffic == 0]
    assert len(first) == pytest.approx(len(planned) / 4, rel=0.1)
    assert sum(one.streamed for one in first) == pytest.approx(len(first) / 2, rel=0.1)
    assert not any(one.streamed for one in planned if one.traffic == 1)
    assert sum(one.earlier_turns for one in first) == pytest.approx(len(first) / 2, rel=0.1)
    assert sum(one.max_tokens == 5 for one in first) == pytest.approx(len(first) * 3 / 4, rel=0.1)
    popular = [one.question for one in planned if one.traffic == 1]
    # Zipf's law with exponent 1 over 200 questions: 1 / H(200) = 17 % ask the first.
    assert popular.count(0) / len(popular) == pytest.approx(0.17, abs=0.02)
    assert {one.question for one in first} <= set(range(200))
