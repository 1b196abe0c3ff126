from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest import bench_engine
from loadtest.engines import table
from loadtest.engines.table import Measured, ResultError
from loadtest.engines.variants import QUICK, SERVE, command, loads, variants
from serving import profile
from serving.profile import Profile


def made(**flags):
    return Profile("p", "t", "m", {name.replace("_", "-"): value for name, value in flags.items()}, {})


@pytest.mark.parametrize("name", profile.names())
def test_every_profile_has_variants_of_one_knob_each(name):
    found = variants(profile.load(name))
    assert found[0].extra == ()
    assert len({one.name for one in found}) == len(found) >= 5
    assert all(len([word for word in one.extra if word.startswith("--")]) == 1 for one in found[1:])
    assert set(QUICK) <= {one.name for one in found}


def test_knobs_are_halved_and_doubled_from_the_profile_or_the_default():
    names = {one.name for one in variants(made(max_num_seqs=32))}
    assert {"max-num-seqs 16", "max-num-seqs 64", "max-num-batched-tokens 1024", "max-num-batched-tokens 4096"} <= names


def test_what_vllm_would_refuse_is_not_tried():
    names = {one.name for one in variants(made(max_num_seqs=1024, max_num_batched_tokens=1024))}
    assert "max-num-seqs 512" in names
    assert not {"max-num-seqs 2048", "max-num-batched-tokens 512"} & names


def test_the_budget_of_pictures_keeps_its_lower_bound():
    found = variants(made(mm_processor_kwargs={"size": {"shortest_edge": 10, "longest_edge": 100}}))
    (half,) = [one for one in found if one.name == "pictures of 50 px"]
    assert json.loads(half.extra[1]) == {"size": {"shortest_edge": 10, "longest_edge": 50}}


def test_the_key_is_not_on_the_command_line():
    load = loads("c.jsonl", 512, 64)[0]
    argv = command("py", load, url="http://x", model="m", tokenizer="t", prompts=3, at_once=2, folder="f", name="n")
    assert argv[:4] == ["py", str(SERVE), "--backend", "openai-chat"]
    assert SERVE.exists()
    assert not any("key" in word.lower() for word in argv)


def result(**values):
    usual = {"request_throughput": 4.0, "output_throughput": 100.0, "completed": 3}
    latencies = {f"p{rank}_{name}_ms": 10.0 for rank in (50, 99) for name in ("ttft", "itl")}
    return usual | latencies | values


def test_a_table_of_failures_is_none():
    assert table.check(result(), 3)
    with pytest.raises(ResultError, match="3 of 4 requests"):
        table.check(result(), 4)


def test_the_page_has_direct_and_gateway_side_by_side_and_every_command():
    page = table.page(
        {"GPU": "L4"}, [Measured("profile", "random", result(), result(request_throughput=3.0))], ["run x"]
    )
    assert "- GPU: L4" in page
    assert "| profile | random | 4.00 | 100 | 10.0 | 10.0 | 10.0 | 10.0 | 3.00 | 0.75x | 10.0 |" in page
    assert "run x" in page


def test_a_profile_s_section_is_added_once_and_then_replaced():
    first = table.publish("# Benchmarks\n\nwords\n", "l4", "one\n")
    assert first.startswith("# Benchmarks\n\nwords\n\n## l4\n")
    both = table.publish(first, "t4", "other\n")
    again = table.publish(both, "l4", "two\n")
    assert "one" not in again
    assert again.count("## l4") == again.count("two") == again.count("other") == 1
    assert again.index("two") < again.index("## t4")


def test_the_catalogue_is_what_vllm_s_benchmark_reads(tmp_path):
    lines = [json.loads(line) for line in bench_engine.catalogue(tmp_path, 3).read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert set(line) == {"prompt", "image_files"}
        assert Path(line["image_files"][0]).read_bytes()[:2] == b"\xff\xd8"
