"""Which profile is for which GPU, and what is refused."""

from __future__ import annotations

import re

import pytest

from serving import fitness, overrides, profile
from serving.capacity import gpus, model
from serving.capacity.weights import Checkpoint
from tests.support.gpus import KINDS, device, machine

EIGHT = model.load("qwen3-vl-8b")
PROFILED = ["t4", "l4", "a10", "l40s", "a100-40", "a100-80", "h100"]


def judge(name, *words, kinds=None, checkpoint=None, devices=None):
    found = overrides.effective(profile.load(name), words)
    here = devices or machine(*(kinds or [name]))
    return fitness.judge(found, checkpoint or fitness.checkpoint_named(found.model or "x-w4a16 qwen3-vl-8b"), here)


class TestChoosing:
    @pytest.mark.parametrize("kind", PROFILED)
    def test_each_gpu_of_the_table_gets_its_own_profile(self, kind):
        choice = fitness.choose(machine(kind))
        assert choice.name == kind
        assert choice.why.startswith(f"for {KINDS[kind][0]} (")
        assert fitness.gpu_of(device(kind)) is gpus.table()[kind]

    @pytest.mark.parametrize(("kind", "name"), [("rtx-4090", "l4"), ("a30", "a10"), ("h20", "h100"), ("b200", "h100")])
    def test_another_gpu_gets_the_nearest_with_the_same_arithmetic_and_no_more_memory(self, kind, name):
        choice = fitness.choose(machine(kind))
        assert choice.name == name
        assert choice.why.startswith("the nearest for ")
        assert "and no less memory" in choice.why

    def test_an_unknown_gpu_is_judged_by_its_own_memory(self):
        assert fitness.gpu_of(device("h20")).visible_bytes == pytest.approx(97871 * (1 << 20) * 0.97, rel=1e-6)
        assert fitness.gpu_of(device("h20")).title == "NVIDIA H20"

    @pytest.mark.parametrize("kind", ["v100", "rtx-3060"])
    def test_a_gpu_below_all_of_them_gets_none(self, kind):
        with pytest.raises(fitness.NoProfile, match=rf"no profile is for {re.escape(KINDS[kind][0])}.*NVIDIA T4"):
            fitness.choose(machine(kind))
        assert fitness.gpu_of(device(kind)) is None

    @pytest.mark.parametrize(
        ("kinds", "name", "why"),
        [
            (["h100"] * 2, "h100-x2", "on 2 GPUs"),
            (["h100"] * 3, "h100-x2", "1 of 3 GPUs stay idle"),
            (["a100-80"] * 4, "a100-80-x4", "on 4 GPUs"),
            (["a100-40"] * 8, "a100-40-x4", "4 of 8 GPUs stay idle"),
            (["l4"] * 2, "l4", "1 of 2 GPUs stay idle: start engines on them with CUDA_VISIBLE_DEVICES"),
        ],
    )
    def test_as_many_gpus_are_used_as_a_profile_is_for(self, kinds, name, why):
        choice = fitness.choose(machine(*kinds))
        assert choice.name == name
        assert why in choice.why

    def test_gpus_that_differ_are_not_chosen_for(self):
        with pytest.raises(fitness.NoProfile, match=r"the GPUs differ .*CUDA_VISIBLE_DEVICES"):
            fitness.choose(machine("l4", "a10"))


class TestJudging:
    @pytest.mark.parametrize("kind", PROFILED)
    def test_a_profile_works_on_its_gpu(self, kind):
        findings = judge(kind)
        assert findings.refusals == ()
        assert findings.notes == ()

    @pytest.mark.parametrize("name", [name for name in profile.names() if "-x" in name])
    def test_a_profile_for_several_works_on_as_many(self, name):
        kind, _, count = name.rpartition("-x")
        findings = judge(name, kinds=[kind] * int(count))
        assert (findings.refusals, findings.notes) == ((), ())

    def test_more_gpus_than_there_are_is_refused(self):
        findings = judge("h100-x4", kinds=["h100", "h100"])
        assert findings.refusals == ("profile h100-x4 with these flags takes 4 GPUs for one engine, and 2 can be seen",)
        assert findings.nearest == ("--profile h100-x2",)

    @pytest.mark.parametrize("words", [("-tp", "2"), ("--tensor-parallel-size=2",), ("-dp", "2"), ("-pp=2",)])
    def test_so_is_asking_for_more_in_vllms_own_words(self, words):
        assert "takes 2 GPUs" in judge("l4", *words).refusals[0]

    def test_where_the_gpus_have_no_profile_the_nearest_says_so(self):
        assert "no profile is for" in judge("h100-x2", kinds=["v100"]).nearest[0]

    def test_bf16_on_a_t4_is_refused_with_what_comes_nearest(self):
        findings = judge("t4", "--dtype", "bfloat16")
        assert "bfloat16 needs 8.0" in findings.refusals[0]
        assert findings.nearest[0] == "--dtype half"

    def test_the_bf16_checkpoint_on_a_t4_does_not_fit_and_four_bits_do(self):
        bf16 = fitness.Checkpointed(EIGHT, Checkpoint.BF16)
        findings = judge("t4", checkpoint=bf16)
        assert "the weights alone are 16.33 GiB" in findings.refusals[0]
        assert findings.nearest[0].startswith("a --model in ")

    def test_a_t4_without_a_dtype_falls_back_to_float16_and_is_told(self):
        findings = judge("t4", "--dtype", "auto")
        assert findings.refusals == ()
        assert "vLLM falls back to float16" in findings.notes[0]

    def test_bf16_at_64k_on_24_gb_is_refused_with_what_comes_nearest(self):
        bf16 = fitness.Checkpointed(EIGHT, Checkpoint.BF16)
        findings = judge("a10", "--max-model-len", "64K", checkpoint=bf16)
        assert "one request of 65,536 tokens takes 9.00 GiB" in findings.refusals[0]
        assert findings.nearest == (
            "a --model in fp8 --kv-cache-dtype fp8",
            "--max-model-len 15360",
            "--tensor-parallel-size 2",
            "a machine with a100-40",
        )

    @pytest.mark.parametrize("backend", ["FLASH_ATTN", "TRITON_ATTN"])
    def test_an_fp8_cache_on_ampere_is_refused_with_a_backend_that_cannot(self, backend):
        findings = judge("a10", "--kv-cache-dtype", "fp8", "--attention-backend", backend)
        assert f"an FP8 KV cache with {backend} needs compute capability" in findings.refusals[0]
        assert findings.nearest[:2] == ("--attention-backend FLASHINFER", "--kv-cache-dtype auto")

    def test_an_fp8_cache_on_ampere_goes_through_flashinfer_and_the_operator_is_told(self):
        findings = judge("a10", "--kv-cache-dtype", "fp8")
        assert findings.refusals == ()
        assert "goes through FlashInfer" in findings.notes[0]

    def test_an_fp8_cache_on_turing_is_refused(self):
        findings = judge("t4", "--kv-cache-dtype=fp8_e4m3")
        assert len(findings.refusals) == 2  # the profile's TRITON_ATTN, and the GPU itself
        assert findings.nearest[0] == "--kv-cache-dtype auto"

    @pytest.mark.parametrize("words", [(), ("--attention-backend", "FLASH_ATTN")])
    def test_an_fp8_cache_on_hopper_is_fine(self, words):
        assert judge("h100", "--kv-cache-dtype", "fp8", *words) == fitness.Findings()

    def test_a_profile_for_another_gpu_is_warned_about_when_it_fits(self):
        findings = judge("l4", kinds=["l40s"])
        assert findings.refusals == ()
        assert findings.notes == (
            "profile l4 is not for NVIDIA L40S (45 GiB, compute capability 8.9): --profile l40s is",
        )

    def test_a_profile_for_a_larger_gpu_is_refused_when_it_does_not_fit(self):
        findings = judge("a100-80", kinds=["a10"])
        assert "for the KV cache" in findings.refusals[0]
        assert "--profile a10 is" in findings.notes[0]

    def test_a_gpu_that_is_full_is_refused(self):
        findings = judge("l4", devices=(device("l4", free_gib=12),))
        assert "GPU 0 has 12.0 GiB free and vLLM asks for 20.2" in findings.refusals[0]

    def test_a_gpu_below_all_profiles_is_refused(self):
        assert "is below every GPU" in judge("t4", kinds=["v100"]).refusals[0]

    def test_what_fits_tightly_is_said(self):
        findings = judge("a10", "--max-model-len", "63k")
        assert findings.refusals == ()
        assert "vLLM may yet refuse" in findings.notes[0]

    def test_a_checkpoint_of_unknown_size_is_judged_but_for_its_memory(self):
        findings = fitness.judge(profile.load("a100-80"), None, machine("a10"))
        assert findings.refusals == ()
        assert "its memory is not judged" in findings.notes[-1]

    def test_settings_that_are_not_computed_leave_memory_out(self):
        findings = judge("h100", "--kv-cache-dtype", "nvfp4")
        assert findings.refusals == ()
        assert "memory is not judged: profile h100: kv-cache-dtype 'nvfp4'" in findings.notes[0]


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("name", "size", "precision"),
        [
            ("Qwen/Qwen3-VL-8B-Instruct", "qwen3-vl-8b", "bf16"),
            ("Qwen/Qwen3-VL-8B-Thinking-FP8", "qwen3-vl-8b", "fp8"),
            ("somebody/Qwen3-VL-32B-Instruct-AWQ", "qwen3-vl-32b", "w4a16"),
            ("Qwen/Qwen3-VL-2B-Instruct", "qwen3-vl-2b", "bf16"),
        ],
    )
    def test_a_published_name_tells_size_and_precision(self, name, size, precision):
        found = fitness.checkpoint_named(name)
        assert (found.model.name, found.precision) == (size, precision)

    @pytest.mark.parametrize("name", ["/models/mine", "Qwen/Qwen3-VL-235B-A22B-Instruct", "Qwen/Qwen3-VL-30B-A3B"])
    def test_other_names_tell_nothing(self, name):
        assert fitness.checkpoint_named(name) is None

    def test_a_config_tells_both(self):
        assert fitness.checkpoint_read(EIGHT).precision is Checkpoint.BF16

    def test_a_quantization_that_is_not_computed_is_unknown(self):
        import dataclasses

        assert fitness.checkpoint_read(dataclasses.replace(EIGHT, quantization="bitsandbytes")) is None


class TestOverrides:
    @pytest.mark.parametrize(
        ("words", "flags"),
        [
            (["--max-model-len", "64k"], {"max-model-len": 64_000}),
            (["--max_model_len=64K"], {"max-model-len": 65_536}),
            (["-tp", "4", "--seed", "1"], {"tensor-parallel-size": 4}),
            (["-tp=4"], {"tensor-parallel-size": 4}),
            (["--max-model-len", "auto"], {}),
            (["--max-num-seqs", "1.5k"], {"max-num-seqs": 1500}),
            (
                ["--mm-processor-kwargs", '{"size":{"longest_edge":9}}'],
                {"mm-processor-kwargs": {"size": {"longest_edge": 9}}},
            ),
            (["--mm-processor-kwargs", "{"], {}),
            (["--mm-processor-kwargs", "[1]"], {}),
            (["--gpu-memory-utilization", "0.5"], {"gpu-memory-utilization": "0.5"}),
            (["--max-model-len"], {}),
            (["stray"], {}),
        ],
    )
    def test_vllms_own_words_win_over_the_profiles(self, words, flags):
        plain = profile.Profile("x", "x", None, {}, {})
        assert dict(overrides.effective(plain, words).flags) == flags
