from __future__ import annotations

import itertools
import math
import random

import pytest

from loadtest.load import conduct, figures, outcome, page, plan, results, scenario, settings, target, twice
from loadtest.load.machine import Look
from loadtest.load.outcome import Outcome
from loadtest.load.scenario import Objective, Ramp
from loadtest.load.search import Search


def one(number=0, *, step=0, traffic="a", planned_s=5.0, e2e_s=1.0, **more):
    usual = {"late_s": 0.001, "ttft_s": 0.5, "right": True}
    return Outcome(step=step, number=number, traffic=traffic, planned_s=planned_s, e2e_s=e2e_s, **usual | more)


def test_percentiles_are_values_that_were_seen():
    values = [float(value) for value in range(1, 101)]
    assert [figures.percentile(values, rank) for rank in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert figures.percentile([7.0], 1) == figures.percentile([7.0], 99) == 7
    assert math.isnan(figures.percentile([], 50))


def test_half_of_the_values_are_at_most_the_median_whatever_they_are():
    dice = random.Random(1)
    for size in range(1, 60):
        values = sorted(dice.random() for _ in range(size))
        for rank in (1, 50, 95, 99):
            found = figures.percentile(values, rank)
            assert sum(value <= found for value in values) >= rank / 100 * size
            assert sum(value < found for value in values) < rank / 100 * size


def test_requests_of_the_settling_time_count_in_all_but_the_times():
    found = figures.sample([one(planned_s=1, e2e_s=99), one(planned_s=4, gaps_s=(0.1, 0.2))], settle_s=3)
    assert (found.sent, found.answered, found.right) == (2, 2, 2)
    assert found.latencies["e2e_s"] == [1.0]
    assert found.latencies["itl_s"] == [0.1, 0.2]


def test_a_failed_request_is_an_error_and_no_latency():
    found = figures.sample([one(), one(fault="503 queue_full", right=False, ttft_s=None, e2e_s=0.001)])
    assert found.value(Objective("errors", 0), {}) == 0.5
    assert found.latencies["e2e_s"] == [1.0]
    assert found.faults == {"503 queue_full": 1}


def test_the_rate_is_that_of_the_plan_over_all_steps():
    found = figures.sample([one(planned_s=2), one(planned_s=10), one(step=1, planned_s=10)])
    assert found.per_s == pytest.approx(3 / 20)


@pytest.mark.parametrize(
    ("objective", "value", "met"),
    [
        (Objective("e2e_s", 2.0, 50), 2.0, True),
        (Objective("e2e_s", 1.9, 50), 2.0, False),
        (Objective("wrong", 0.25), 0.25, True),
        (Objective("wrong", 0.2), 0.25, False),
        (Objective("errors", 0.0), 0.0, True),
        (Objective("changed", 0.05), 0.1, False),
        (Objective("e2e_s", 3.9, 99, "b"), 4.0, False),
    ],
)
def test_objectives_are_judged_by_their_figure(objective, value, met):
    outcomes = [one(e2e_s=1.0), one(e2e_s=2.0), one(e2e_s=3.0), one(e2e_s=4.0, traffic="b", right=False)]
    samples = {"": figures.sample(outcomes), "b": figures.sample(outcomes[3:])}
    (judged,) = figures.judge([objective], samples, {"changed": 0.1})
    assert (judged.value, judged.met) == (pytest.approx(value), met)


def test_what_was_not_measured_is_neither_met_nor_missed():
    (judged,) = figures.judge([Objective("memory_growth", 0.05)], {"": figures.sample([one()])}, {})
    assert judged.met
    assert not judged.asked


def test_no_answer_at_all_misses_every_latency():
    samples = {"": figures.sample([one(fault="refused")])}
    (judged,) = figures.judge([Objective("ttft_s", 9, 95)], samples, {})
    assert not judged.met


def test_growth_compares_the_last_quarter_with_the_second():
    assert figures.growth([1, 1, *[100] * 6, *[100] * 4]) == 0
    assert figures.growth([50, 60, 100, 100, 105, 110, 120, 120]) == pytest.approx(0.2)
    assert math.isnan(figures.growth([1.0] * 7))


def searched(ramp, capacity, flaky=(), disturbed=()):
    """Search a service of that capacity; `flaky` steps miss whatever it is, `disturbed` ones too, and are known to."""
    search, tried = Search(ramp), []
    while search.rate is not None:
        tried.append((search.feeling, search.rate))
        number = len(tried)
        met = search.rate <= capacity and number not in flaky and number not in disturbed
        search.tell(met=met, disturbed=number in disturbed)
    return search, tried


@pytest.mark.parametrize("capacity", [0.3, 1.0, 3.3, 64.0, 5000.0])
def test_the_search_finds_any_capacity_within_what_was_asked(capacity):
    search, tried = searched(Ramp(within=0.05), capacity)
    assert search.met <= capacity
    assert capacity <= search.met * 1.05 or capacity - search.met < 0.05
    assert len(tried) < 40


def test_the_demo_s_capacity_takes_minutes():
    """Ten times as long as is felt, each miss twice, both ends once more: the steps of a service of some 30 requests a second."""
    for capacity in range(16, 64):
        ramp = scenario.load("ramp").ramp
        _, tried = searched(ramp, capacity)
        lasts_s = sum(ramp.feeling_s if feeling else ramp.step_s for feeling, _ in tried)
        assert ramp.unloaded_s + lasts_s <= 235


def test_short_steps_decide_nothing():
    """All short steps are met, or none: the capacity is the same, within what was asked."""

    def found(capacity_felt):
        search = Search(Ramp(first_per_s=4))
        while search.rate is not None:
            search.tell(met=search.rate <= (capacity_felt if search.feeling else 64))
        return search.met

    for felt in (3, 20, 40, 200, 1000):
        assert 64 / 1.04 <= found(felt) <= 64


def test_one_stall_does_not_end_the_climb():
    for stalled in range(1, 12):
        assert 64 / 1.04 <= searched(Ramp(), 64.0, flaky={stalled})[0].met <= 64


def test_one_lucky_step_is_no_capacity():
    """Two rates above 64 are met once, in whole steps, and missed ever after."""
    search, lucky = Search(Ramp(first_per_s=8)), set()
    while search.rate is not None:
        rate, whole = search.rate, not search.feeling
        luck = whole and 64 < rate < 90 and rate not in lucky and len(lucky) < 2
        lucky |= {rate} if luck else set()
        search.tell(met=rate <= 64 or luck)
    assert lucky
    assert 64 / 1.04 <= search.met <= 64


def test_a_machine_whose_speed_changes_all_the_time_gives_a_capacity_in_doubt_and_an_end():
    for seed in range(50):
        dice, search, tried = random.Random(seed), Search(Ramp(first_per_s=8)), 0
        while search.rate is not None:
            tried += 1
            search.tell(met=search.rate <= dice.choice([40, 64]))
        assert tried < 60
        assert 30 < search.met <= 64 or search.doubtful


def test_a_disturbance_of_several_steps_is_found_out_at_the_end():
    _, undisturbed = searched(Ramp(first_per_s=8), 64.0)
    first = next(number for number, (feeling, _) in enumerate(undisturbed, 1) if not feeling)
    search, tried = searched(Ramp(first_per_s=8), 64.0, flaky={first, first + 1})
    assert tried[first - 1] == tried[first]
    assert 64 / 1.04 <= search.met <= 64


def test_a_miss_while_the_machine_had_other_things_to_do_is_asked_again():
    _, undisturbed = searched(Ramp(first_per_s=8), 64.0)
    first = next(number for number, (feeling, _) in enumerate(undisturbed, 1) if not feeling)
    search, tried = searched(Ramp(first_per_s=8, patience=3), 64.0, disturbed=set(range(first, first + 3)))
    assert len({rate for _, rate in tried[first - 1 : first + 3]}) == 1
    assert 64 / 1.04 <= search.met <= 64
    assert not search.doubtful


def test_a_machine_that_is_never_quiet_gives_a_capacity_in_doubt_and_an_end():
    search, tried = searched(Ramp(), 64.0, disturbed=set(range(1, 1000)))
    assert search.met == 0
    assert search.doubtful
    assert len(tried) < 60


def test_a_service_that_meets_nothing_has_no_capacity():
    search, tried = searched(Ramp(), 0.0)
    assert search.met == 0
    assert len(tried) < 20


def test_a_search_without_a_limit_ends_at_the_highest_rate():
    search, _ = searched(Ramp(most_per_s=100), math.inf)
    assert search.missed is None
    assert 100 / 2 < search.met <= 100
    for act in (search.phase, lambda: search.tell(met=True)):
        with pytest.raises(ValueError, match="over"):
            act()


def test_a_step_lasts_until_enough_requests_are_planned():
    search = Search(Ramp(first_per_s=2, feeling_s=5, step_s=20, least_requests=100))
    assert search.phase().lasts_s == 10
    search.tell(met=False)
    search.tell(met=False)
    assert search.phase().lasts_s == pytest.approx(100 / search.rate)
    assert Search(Ramp(first_per_s=20, feeling_s=5)).phase().lasts_s == 5


class SimulatedCrew:
    """A service with a capacity: beyond it, waits grow through a step. Every tenth answer is wrong, half by the load."""

    def __init__(self, asked, capacity, *, wrong_every=0, faulty=False, alone_s=0.0, late_s=0.001):
        self.scenario, self.capacity, self.wrong_every, self.faulty = asked, capacity, wrong_every, faulty
        self.alone_s, self.late_s = alone_s, late_s
        self.asked_again = 0

    def play(self, step, phases):
        free_at, outcomes = 0.0, []
        for each in plan.requests(phases, self.scenario.traffic, plan.seed_of(self.scenario, step)):
            free_at = max(free_at, each.at_s) + 1 / self.capacity
            wrong = self.wrong_every and each.number % self.wrong_every == 0
            wait_s = free_at - each.at_s + self.alone_s
            name = self.scenario.traffic[each.traffic].name
            fault = "503" if self.faulty else ""
            more = {"right": not wrong, "answer": f"wrong {each.question}" if wrong else "", "fault": fault}
            more["late_s"] = self.late_s
            outcomes.append(
                one(each.number, step=step, traffic=name, planned_s=each.at_s, e2e_s=wait_s, ttft_s=wait_s, **more)
            )
        return outcomes

    def alone(self, step, planned):
        self.asked_again += 1
        return f"wrong {planned.question}" if planned.question % 2 else "right"


def run(name, capacity, *, at_least=0.0, lasts_s=None, memory=None, look=lambda: None, **more):
    asked = scenario.load(name, scenario.Changes(lasts_s=lasts_s))
    crew = SimulatedCrew(asked, capacity, **more)
    said = []
    return conduct.conduct(asked, crew, lambda: memory or {}, said.append, at_least, look), crew, said


def test_a_service_that_holds_has_met_its_objectives():
    findings, _, said = run("steady", 100)
    assert findings.met
    assert findings.tables["all"]["sent"] == findings.tables["interactive"]["right"] > 100
    assert said[-1].endswith("met")


def test_overload_is_seen_because_waits_count_from_the_planned_arrival():
    findings, _, said = run("steady", 2)
    assert not findings.met
    assert "missed ttft_s P95" in said[-1]


def test_the_ramp_finds_the_same_capacity_twice():
    found = [run("ramp", capacity)[0].capacity_per_s for capacity in (30, 30)]
    assert found[0] == found[1] == pytest.approx(30, rel=0.1)


def test_a_ramp_says_what_bounds_a_slow_service_has_got():
    """Ten requests a second that take 0.6 s each alone: a bound of 1 s would be missed at next to no load."""
    slow = run("ramp", 30, alone_s=0.6)[0]
    bounds = {each["of"]: each["most"] for each in slow.summary()["scenario"]["slo"]}
    assert bounds["ttft_s"] == pytest.approx(5 * slow.unloaded["ttft_s"])
    assert slow.unloaded["ttft_s"] == pytest.approx(0.63, abs=0.1)
    assert slow.capacity_per_s > 20
    quick = run("ramp", 30)[0]
    assert {each["of"]: each["most"] for each in quick.summary()["scenario"]["slo"]}["ttft_s"] == 1


def test_a_step_beside_other_work_is_disturbed_and_says_by_how_much():
    ticks = itertools.count(0, 1000)

    def look():
        """Of 1,000 ticks 300 are ours, 200 others', 500 idle."""
        at = next(ticks)
        return Look(whole=at, idle=at // 2, stolen=0, working=at // 2, ours=at * 3 // 10)

    findings, _, said = run("ramp", 30, look=look)
    assert all(step.disturbed for step in findings.steps)
    assert findings.steps[0].use.others == pytest.approx(0.2)
    assert findings.capacity_doubtful
    assert "disturbed: 20% of the machine by others" in said[0]
    assert "it may be more" in said[-1]


def test_a_miss_by_the_generator_alone_is_no_miss_of_the_service():
    findings, _, said = run("ramp", 30, late_s=0.3)
    assert all(step.disturbed for step in findings.steps)
    assert "the generator was late" in said[0]


@pytest.mark.parametrize(
    ("capacities", "apart", "met"),
    [((30, 32.9), "9.7%", True), ((33.1, 30), "10.3%", False), ((0, 30), "inf%", False), ((30, 30), "0.0%", True)],
)
def test_two_capacities_are_the_same_within_what_was_asked(capacities, apart, met):
    summaries = [{"capacity_per_s": each, "capacity_doubtful": each == 0} for each in capacities]
    verdict = twice.judge(*summaries, apart=0.1)
    assert verdict.met == met
    assert apart in str(verdict)
    assert ("disturbed" in str(verdict)) == (0 in capacities)


def memory_of(slope_mib_h, *, noise_mib=0.0, seconds=1800):
    dice = random.Random(2)
    return [
        (float(at), (100 + slope_mib_h * at / 3600 + dice.uniform(-noise_mib, noise_mib)) * figures.MIB)
        for at in range(0, seconds, 2)
    ]


@pytest.mark.parametrize("slope", [0.0, 6.0, 60.0, -6.0])
def test_the_slope_of_memory_is_found_through_noise_and_one_peak(slope):
    timed = memory_of(slope, noise_mib=3)
    timed[500] = (timed[500][0], 1e12)
    assert figures.slope_mib_h(timed) == pytest.approx(slope, abs=1.5)
    assert math.isnan(figures.slope_mib_h(timed[:8]))


def test_a_service_whose_memory_grows_has_missed():
    flat = {"gateway without its caches": memory_of(0), "engine": memory_of(0)}
    assert run("soak", 100, lasts_s=60, memory=flat)[0].met
    for name in flat:
        findings, _, _ = run("soak", 100, lasts_s=60, memory={**flat, name: memory_of(60)})
        assert not findings.met
    # What only fills a cache that has a bound is none: that series is not judged.
    assert run("soak", 100, lasts_s=60, memory={**flat, "gateway": memory_of(60)})[0].met


def test_a_ramp_below_what_was_wanted_has_missed():
    assert run("ramp", 30, at_least=20)[0].met
    assert not run("ramp", 30, at_least=40)[0].met
    assert not run("ramp", 1)[0].met


def test_wrong_answers_that_are_right_alone_were_changed_by_the_load():
    findings, crew, _ = run("steady", 100, wrong_every=2)
    judged = {each.title: each for each in findings.judged}
    assert judged["wrong"].value == pytest.approx(0.5, abs=0.01)
    assert judged["changed"].value == pytest.approx(0.25, abs=0.05)
    assert not judged["changed"].met
    assert 0 < crew.asked_again <= conduct.ASKED_AGAIN
    assert len(findings.wrong) == figures.EXAMPLES


def test_no_answer_at_all_is_a_miss_and_asks_nothing_again():
    findings, crew, _ = run("steady", 100, faulty=True)
    assert not findings.met
    assert crew.asked_again == 0


def test_an_outcome_survives_the_wire_and_the_file(tmp_path):
    kept = one(7, gaps_s=(0.1, 0.25), fault="x", answer="née 红")
    assert outcome.unpack(outcome.pack(kept)) == kept
    (tmp_path / "r").write_bytes(outcome.line(kept) * 2)
    assert list(outcome.read(tmp_path / "r")) == [kept, kept]


def written(folder, name="steady", capacity=100.0, **more):
    findings, crew, _ = run(name, capacity, **more)
    asked = settings.Run(scenario=name, url="http://x<y", folder=str(folder))
    kept = results.Folder(folder)
    for step in findings.steps:
        for each in crew.play(step.number, step.phases):
            kept.keep(each)
    met = kept.finish(asked, findings, target.Target("m", "exact"), 1, {"engine": [(1.0, 1e8), (2.0, 1.1e8)]})
    assert met == findings.met
    return folder


def test_the_report_is_one_file_that_fetches_nothing(tmp_path):
    html = page.report(written(tmp_path, wrong_every=3))
    assert "objectives missed" in html
    assert "http://x&lt;y" in html
    assert "Wrong answers" in html
    assert html.count("<svg") == 3
    for fetching in ("<script", "<link", "src=", "@import", "url(http"):
        assert fetching not in html


def test_the_report_of_a_ramp_shows_the_search(tmp_path):
    html = page.report(written(tmp_path, "ramp", 30.0))
    assert "The search" in html
    assert "Capacity: <b>" in html


def test_the_report_shows_failures_by_kind(tmp_path):
    html = page.report(written(tmp_path, faulty=True))
    assert "<td>503</td>" in html
    assert "objectives missed" in html


def test_two_runs_are_compared_figure_by_figure(tmp_path):
    fast, slow = written(tmp_path / "fast"), written(tmp_path / "slow", capacity=10.0)
    rows = {name: (old, new) for name, old, new in page.changes(results.read(fast), results.read(slow))}
    old, new = rows["all: whole answer p95 [s]"]
    assert old < new
    assert page.change_cells(("x", 2.0, 3.0))[-1] == "+50.0 %"
    assert page.change_cells(("x", None, 3.0)) == ["x", "–", "3", "–"]
    html = page.comparison(fast, slow)
    assert str(fast) in html
    assert "<svg" in html


def test_percentiles_are_written_as_csv(tmp_path):
    text = (written(tmp_path) / results.PERCENTILES).read_text()
    assert text.startswith("traffic,latency,p50,p95,p99\nall,ttft_s,0.01")


def test_an_unfinished_run_has_no_verdict(tmp_path):
    written(tmp_path)
    results.Folder(tmp_path).close()
    with pytest.raises(results.NoRunError, match="no finished run"):
        results.read(tmp_path)
