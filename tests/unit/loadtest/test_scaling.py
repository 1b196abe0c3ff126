from __future__ import annotations

import dataclasses

import pytest

from loadtest import scaling, workers

INPUTS, ROWS = scaling.read()


def with_(**values):
    return dataclasses.replace(INPUTS, **values)


@pytest.mark.parametrize("utilization", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("slots", [1, 8])
def test_one_worker_and_one_engine_wait_as_erlang_says(slots, utilization):
    found = workers.simulate(1, 1, slots, utilization, requests=200_000)
    share = workers.erlang_c(slots, utilization)
    assert found.waiting_share == pytest.approx(share, rel=0.1)
    assert found.mean == pytest.approx(share / (slots * (1 - utilization)), rel=0.2)


def test_one_server_waits_as_often_as_it_is_busy():
    assert workers.erlang_c(1, 0.7) == pytest.approx(0.7)
    # A textbook's value: two servers with a load of one Erlang.
    assert workers.erlang_c(2, 0.5) == pytest.approx(1 / 3)


def test_own_counts_are_worse_than_one_view_and_better_than_chance():
    waits = [workers.simulate(many, 16, 32, 0.85, requests=20_000).mean for many in (1, 16, 64)]
    assert waits == sorted(waits)
    assert waits[-1] < workers.erlang_c(32, 0.85) / (32 * 0.15)


def test_equal_seeds_give_equal_waits():
    assert workers.simulate(4, 4, 8, 0.8, requests=2000) == workers.simulate(4, 4, 8, 0.8, requests=2000)


def test_a_core_is_worth_its_microseconds():
    plain = with_(hit_share=0, streamed_share=0, picture_kib=0, choose_engine_ns=0, miss_us=1000, core_use=0.5)
    assert plain.request_us() == 1000
    assert [plain.cores(per_s) for per_s in (1, 500, 501, 5000)] == [1, 1, 2, 10]


def test_a_request_is_what_its_parts_cost():
    mixed = with_(
        hit_share=0.5, streamed_share=0.5, chunks=100, picture_kib=512, miss_us=1000, hit_us=200, chunk_us=10,
        picture_mib_us=4000, choose_engine_ns=1000,
    )  # fmt: skip
    # Half are hits; the others 1,000 µs, 50 chunks of 10 and 100 engines of 1; all have half a MiB.
    assert mixed.request_us(100) == pytest.approx(0.5 * 200 + 0.5 * (1000 + 500 + 100) + 2000)


def test_limits_are_two_scripts_a_request():
    assert with_(redis_script_us=50, core_use=1).redis_limit_cores(10_000) == 1
    assert with_(redis_script_us=50, core_use=1).redis_limit_cores(10_001) == 2


def test_memory_traffic_and_records_follow_from_the_rate():
    assert with_(hit_share=0, ttl_s=1024, answer_bytes=1 << 20).cached_gib(1) == pytest.approx(1)
    assert with_(picture_kib=750 * 1000 / 1024).lb_gbit_s(1000) == pytest.approx(8)
    assert with_(audit_bytes=500).audit_mb_s(2000) == pytest.approx(1)


def test_probes_grow_with_workers_whatever_one_engine_does():
    shares = [INPUTS.probes_share(engines, "h100") for engines in scaling.DOMAINS]
    assert shares == sorted(shares)
    assert with_(probe_interval_s=4).probes_share(64, "h100") == pytest.approx(shares[2] / 2)


def test_the_cache_saves_gpus():
    assert with_(hit_share=0.5).gpus(10_000, "h100") == pytest.approx(
        with_(hit_share=0).gpus(10_000, "h100") / 2, abs=1
    )


def test_every_input_says_where_it_is_from():
    assert all(kind in {"measured", "documented", "computed", "assumed"} and source for _, _, kind, source in ROWS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[hit_us]", "[hit]"), "missing or unknown: hit, hit_us"),
        (('"assumed"', '"guessed"'), "is guessed"),
        (('part = "audit_us"', "value = 5"), "audit_us: a measured value is read"),
        (('part = "audit_us"', 'part = "x"'), "audit_us: nothing is called 'x'"),
    ],
)
def test_a_faulty_file_of_inputs_is_refused(tmp_path, change, says):
    (tmp_path / "scaling.toml").write_text(scaling.INPUTS.read_text().replace(*change))
    with pytest.raises(ValueError, match=says):
        scaling.read(tmp_path / "scaling.toml")


BENCH = f"""words
{scaling.BENCH_BEGIN}
`make bench-gateway`: medians

| gateway | CPU µs/request | CPU µs/hit | CPU µs/chunk | 1 MiB: CPU µs |
| --- | --: | --: | --: | --: |
| ours | 1,280 | 99 | 7.5 | 5,280 |
| nginx | 16 | – | 3.5 | 800 |

Ratios from the same run:

|  | CPU µs/request |
| --- | --: |
| ours / nginx | 80 |
"""


def test_what_the_gateway_costs_is_read_from_the_benchmark_s_table(tmp_path):
    (tmp_path / "performance.md").write_text(BENCH)
    inputs, rows = scaling.read(performance=tmp_path / "performance.md")
    assert (inputs.miss_us, inputs.hit_us, inputs.chunk_us, inputs.picture_mib_us) == (1280, 99, 7.5, 4000)
    assert (inputs.lb_request_us, inputs.lb_chunk_us, inputs.lb_mib_us) == (16, 3.5, 784)
    assert any("make bench-gateway" in source for _, _, _, source in rows)
    assert "nginx" in scaling.bench_table(BENCH)
    assert "ours / nginx" not in scaling.bench_table(BENCH)


def test_another_measurement_without_new_tables_fails_the_check(tmp_path, monkeypatch, capsys):
    page = tmp_path / "scaling.md"
    page.write_text(f"{scaling.BEGIN}\n{scaling.END}")
    monkeypatch.setattr(scaling, "own_counts", lambda: "")
    assert scaling.main(["--write", str(page)]) == scaling.main(["--check", str(page)]) == 0
    (tmp_path / "performance.md").write_text(BENCH)
    monkeypatch.setattr(scaling.read, "__defaults__", (scaling.INPUTS, tmp_path / "performance.md", scaling.PARTS))
    assert scaling.main(["--check", str(page)]) == 1
    assert "out of step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("| nginx |", "| envoy |"), "nothing is called 'nginx'"),
        (("CPU µs/chunk", "µs/chunk"), "nothing is called 'CPU µs/chunk'"),
        (("| 16 |", "| – |"), "nothing is called 'CPU µs/request'"),
        (("| gateway |", "| door |"), "no table of bench-gateway"),
    ],
)
def test_a_table_without_what_is_needed_is_refused(tmp_path, change, says):
    (tmp_path / "performance.md").write_text(BENCH.replace(*change))
    with pytest.raises(ValueError, match=says):
        scaling.read(performance=tmp_path / "performance.md")


def test_the_page_has_every_table(capsys):
    assert scaling.main([]) == 0
    printed = capsys.readouterr().out
    for heading in (
        "One gateway core",
        "What each part needs",
        "Engines that one gateway sees",
        "Cells of 64",
        "Inputs",
    ):
        assert f"### {heading}" in printed
    assert "100,000" in printed
