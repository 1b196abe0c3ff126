"""The model as a whole: nothing is lost, and it agrees with queueing theory where that has a formula."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.autoscale import report, scenarios
from loadtest.autoscale.engine import EngineModel
from loadtest.autoscale.policy import Policy, Signal, Trigger
from loadtest.autoscale.simulate import Setup, simulate
from loadtest.autoscale.workload import Phase, arrivals, lasts_s

UNBOUNDED = {"max_in_flight": 10**9, "max_waiting": 10**9, "deadline_s": 1e9}
ENGINE = EngineModel(lambda running: 0.2 * running, 8)
IN_FLIGHT = Policy((Trigger(Signal.IN_FLIGHT, 4),))
BURST = (Phase(120, 0.5), Phase(240, 6), Phase(900, 0.2), Phase(900, 0))


def erlang_c(servers, load):
    """The share of arrivals that wait in M/M/c (Erlang, 1917), by the recursion for Erlang B."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


class TestAgainstTheory:
    SERVERS, PER_S, SERVICE_PER_S = 6, 0.9, 0.25
    """A utilization of 0.6."""

    def simulated(self, shape, seconds, seed):
        """With a pause at the end, in which everybody comes to an end."""
        one = shape == "one engine of six"
        model = EngineModel(lambda running: running * self.SERVICE_PER_S, self.SERVERS if one else 1)
        setup = Setup(model, **(UNBOUNDED if one else {**UNBOUNDED, "max_in_flight": 1}))
        phases = [Phase(seconds, self.PER_S), Phase(1000, 0)]
        return simulate(phases, setup, None, seed=seed, replicas=1 if one else self.SERVERS)

    @pytest.mark.parametrize("shape", ["one engine of six", "six engines of one"])
    def test_each_wait_is_that_of_the_kiefer_wolfowitz_recursion(self, shape):
        free_s, waits = [0.0] * self.SERVERS, []
        for arrival in arrivals([Phase(3000, self.PER_S)], random.Random(5)):
            begins_s = max(arrival.at_s, heapq.heappop(free_s))
            waits.append(begins_s - arrival.at_s)
            heapq.heappush(free_s, begins_s + arrival.work / self.SERVICE_PER_S)
        assert sorted(self.simulated(shape, 3000, 5).waits_s) == pytest.approx(sorted(waits), abs=1e-6)

    def test_waits_are_those_of_m_m_c(self):
        waiting = erlang_c(self.SERVERS, self.PER_S / self.SERVICE_PER_S)
        mean_s = waiting / (self.SERVERS * self.SERVICE_PER_S - self.PER_S)
        found = [self.simulated("one engine of six", 4000, seed) for seed in range(12)]
        assert fmean(fmean(wait > 0 for wait in outcome.waits_s) for outcome in found) == pytest.approx(
            waiting, rel=0.1
        )
        # The mean of 43,000 waits still varies by some 7 %: long queues come seldom, and then many are in them.
        assert fmean(fmean(outcome.waits_s) for outcome in found) == pytest.approx(mean_s, rel=0.15)

    def test_an_engine_that_shares_its_speed_answers_as_m_m_1_ps(self):
        """Mean time in an M/M/1-PS is 1 / (service rate - arrival rate); by Little's law, rho / (1 - rho) are there."""
        setup = Setup(EngineModel(lambda _: 1.0, 10**9), scrape_interval_s=2.0, **UNBOUNDED)
        outcome = simulate([Phase(20_000, 0.5)], setup, None, seed=3)
        assert fmean(sample.in_flight for sample in outcome.samples) == pytest.approx(1.0, rel=0.08)


class TestConservation:
    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 2**32),
        cold_start_s=st.floats(0, 400),
        deadline_s=st.floats(1, 300),
        max_waiting=st.integers(0, 200),
        preparing_s=st.sampled_from([0.0, 0.3]),
        least=st.integers(0, 3),
        window_s=st.sampled_from([0.0, 60.0, 600.0]),
    )
    def test_who_came_is_served_refused_or_still_there(
        self, seed, cold_start_s, deadline_s, max_waiting, preparing_s, least, window_s
    ):
        setup = Setup(
            replace(ENGINE, preparing_s=preparing_s),
            cold_start_s=cold_start_s,
            deadline_s=deadline_s,
            max_waiting=max_waiting,
            max_in_flight=8,
        )
        policy = replace(IN_FLIGHT, min_replicas=least, down_window_s=window_s, cooldown_s=60)
        outcome = simulate(BURST, setup, policy, seed=seed, replicas=least)
        assert outcome.arrived == outcome.served + outcome.refused + outcome.expired + outcome.remaining
        assert len(outcome.waits_s) == outcome.served
        assert all(wait >= 0 for wait in outcome.waits_s)
        assert all(least <= sample.replicas <= 4 for sample in outcome.samples)
        assert 0 <= outcome.engine_s <= 5 * lasts_s(BURST)

    def test_the_same_seed_gives_the_same_outcome_and_another_one_another(self):
        setup = Setup(ENGINE, max_in_flight=8)
        once, again, other = (simulate(BURST, setup, IN_FLIGHT, seed=seed) for seed in (1, 1, 2))
        assert once == again
        assert once.waits_s != other.waits_s

    def test_fixed_engines_cost_their_time(self):
        outcome = simulate([Phase(1000, 0.1)], Setup(ENGINE), None, seed=1, replicas=3)
        assert outcome.engine_s == pytest.approx(3000)
        assert outcome.changes == 0


class TestArrivals:
    def test_they_come_in_order_at_the_rate_of_their_phase(self):
        phases = [Phase(2000, 1.0), Phase(500, 0.0), Phase(2000, 3.0)]
        times = [arrival.at_s for arrival in arrivals(phases, random.Random(1))]
        assert times == sorted(times)
        assert not [at_s for at_s in times if 2000 <= at_s < 2500]
        assert sum(at_s < 2000 for at_s in times) == pytest.approx(2000, rel=0.07)
        assert sum(at_s >= 2500 for at_s in times) == pytest.approx(6000, rel=0.05)

    def test_work_is_one_on_average(self):
        work = [arrival.work for arrival in arrivals([Phase(20_000, 1)], random.Random(2))]
        assert fmean(work) == pytest.approx(1, rel=0.03)


class TestWhatThePageClaims:
    CALL = (Phase(60, 0), Phase(300, 0.6), Phase(600, 0))

    @pytest.mark.parametrize("seed", range(3))
    def test_with_the_cap_at_the_batch_vllm_s_queue_starts_nothing(self, seed):
        setup = Setup(ENGINE, max_in_flight=8)
        blind = simulate(BURST, setup, Policy((Trigger(Signal.WAITING, 4),)), seed=seed)
        seeing = simulate(BURST, setup, IN_FLIGHT, seed=seed)
        assert max(sample.replicas for sample in blind.samples) == 1
        assert max(sample.replicas for sample in seeing.samples) == 4
        assert seeing.refused_share < blind.refused_share

    @pytest.mark.parametrize("seed", range(3))
    def test_pictures_that_are_being_prepared_are_invisible_to_vllm_s_queue(self, seed):
        setup = Setup(replace(ENGINE, preparing_s=1.0), max_in_flight=64)
        blind = simulate(BURST, setup, Policy((Trigger(Signal.WAITING, 4),)), seed=seed)
        assert max(sample.in_flight for sample in blind.samples) > 64
        assert blind.changes == 0

    @pytest.mark.parametrize("seed", range(3))
    def test_cpu_starts_all_engines_for_a_load_of_one_or_none_for_any(self, seed):
        light = (Phase(3600, 0.5),)
        low, high = (
            simulate(phases, Setup(ENGINE), Policy((Trigger(Signal.CPU, target),)), seed=seed)
            for phases, target in ((light, 0.2), (BURST, 0.6))
        )
        assert max(sample.replicas for sample in low.samples) == 4
        assert max(sample.replicas for sample in high.samples) == 1

    @pytest.mark.parametrize("seed", range(3))
    def test_from_zero_everybody_is_answered_when_the_deadline_covers_the_cold_start(self, seed):
        policy = replace(IN_FLIGHT, min_replicas=0)
        long, short = (
            simulate(self.CALL, Setup(ENGINE, cold_start_s=180, deadline_s=time), policy, seed=seed, replicas=0)
            for time in (240, 60)
        )
        assert long.refused_share == 0
        assert short.expired > 0
        assert max(long.waits_s) > 150

    def test_after_the_cooldown_no_engine_is_left(self):
        policy = replace(IN_FLIGHT, min_replicas=0, cooldown_s=120, down_window_s=60)
        setup = Setup(ENGINE, cold_start_s=30, deadline_s=120)
        outcome = simulate(self.CALL, setup, policy, seed=1, replicas=0)
        assert outcome.samples[-1].replicas == 0
        assert outcome.engine_s < lasts_s(self.CALL)

    def test_an_engine_that_is_taken_away_ends_what_it_has(self):
        slow = EngineModel(lambda running: 0.01 * running, 8)
        policy = replace(IN_FLIGHT, down_window_s=0, triggers=(Trigger(Signal.IN_FLIGHT, 100),))
        outcome = simulate([Phase(60, 0.3), Phase(3000, 0)], Setup(slow), policy, seed=1, replicas=3)
        assert outcome.samples[-1].replicas == 1
        assert outcome.served == outcome.arrived > 5


class TestTheReport:
    @pytest.fixture
    def short(self, monkeypatch):
        """Every load of the page with a fiftieth of its time."""
        for name in ("SHOP", "WAVES", "CALLS", "LONG_PROMPTS"):
            phases = tuple(replace(phase, lasts_s=phase.lasts_s / 50) for phase in getattr(scenarios, name))
            monkeypatch.setattr(scenarios, name, phases)
        monkeypatch.setattr(scenarios, "SEEDS", (1,))

    def test_each_row_has_a_cell_for_each_column(self, short):
        text = report.tables(lambda cases: scenarios.results(cases, map))
        assert text.count("### ") == 6
        for table in text.split("### ")[1:]:
            rows = [line for line in table.splitlines() if line.startswith("|")]
            assert len(rows) > 5
            assert len({row.count("|") for row in rows}) == 1, rows

    def test_a_page_out_of_step_is_found(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(report, "on_all_cores", report.per_gpu)
        page = tmp_path / "page.md"
        page.write_text(f"before\n{report.BEGIN}\n{report.END}\nafter\n")
        assert report.main(["--check", str(page)]) == 1
        assert report.main(["--write", str(page)]) == 0
        assert report.main(["--check", str(page)]) == 0
        assert "out of step" in capsys.readouterr().err

    def test_the_target_is_where_the_engine_gives_the_share(self):
        speeds = scenarios.rates("l4")
        target = scenarios.target_in_flight("l4", 0.6)
        assert speeds[target - 1] < 0.6 * speeds[-1] <= speeds[target]
        assert scenarios.target_in_flight("l4", 1.0) == len(speeds) - 1
