"""What is counted: parameters, visual tokens, blocks of KV cache, bytes of weights, graphs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.capacity import gpus, images, kv, memory, model, weights
from serving.capacity.images import Size
from serving.capacity.question import Engine, KvDtype
from serving.capacity.weights import Checkpoint

ROOT = Path(__file__).parents[3]
GIB = 1 << 30
EIGHT = model.load("qwen3-vl-8b")
A10, L4, A100, H100 = (gpus.table()[name] for name in ("a10", "l4", "a100-80", "h100"))

squares = st.builds(lambda side: Size(side, side), st.integers(1, 8000))
available = st.integers(0, 80 * GIB)
contexts = st.integers(1, 262_144)


class TestModel:
    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            # The sizes that the hub shows for the released checkpoints.
            ("qwen3-vl-2b", 2_127_532_032),
            ("qwen3-vl-4b", 4_437_815_808),
            ("qwen3-vl-8b", 8_767_123_696),
            # Qwen3-32B has 32,762,123,264; the vision tower is that of the 8B with wider mergers.
            ("qwen3-vl-32b", 32_762_123_264 + 595_266_800),
        ],
    )
    def test_the_parameters_of_each_released_size_are_counted_to_the_unit(self, name, parameters):
        assert model.load(name).parameters.total == parameters

    def test_a_directory_with_a_config_json_is_a_model(self, tmp_path):
        (tmp_path / "config.json").write_text((model.MODELS_DIR / "qwen3-vl-4b.json").read_text())
        assert model.load(str(tmp_path)).parameters == model.load("qwen3-vl-4b").parameters
        assert model.load(str(tmp_path / "config.json")).name == tmp_path.name

    def test_biases_of_attention_are_counted_where_a_model_has_them(self):
        text = dataclasses.replace(EIGHT.text, attention_bias=True)
        more = model.count(text, EIGHT.vision).total - EIGHT.parameters.total
        assert more == 36 * (4096 + 2 * 1024 + 4096)

    def test_a_name_that_is_no_model_is_refused_with_the_known_ones(self):
        with pytest.raises(model.ModelError, match=r"qwen3-vl-2b, .*qwen3-vl-8b"):
            model.load("qwen3-vl-9b")

    def test_a_file_that_is_no_json_is_refused(self, tmp_path):
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(model.ModelError, match="cannot be read as JSON"):
            model.load(str(tmp_path))

    @pytest.mark.parametrize("config", [[], {}, {"architectures": None}, {"architectures": ["Qwen3VLMoeForCausalLM"]}])
    def test_another_architecture_is_refused(self, config):
        with pytest.raises(model.ModelError, match="only Qwen3VLForConditionalGeneration"):
            model.parse(config, "x")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda config: config["text_config"].pop("head_dim"), "no 'head_dim'"),
            (lambda config: config.pop("vision_config"), "no 'vision_config'"),
            (lambda config: config.update(text_config=None), "not that of a Qwen3-VL"),
            (lambda config: config["vision_config"].update(depth="many"), "not that of a Qwen3-VL"),
        ],
    )
    def test_a_config_without_a_width_is_refused_by_its_name(self, change, words):
        config = json.loads((model.MODELS_DIR / "qwen3-vl-8b.json").read_text())
        change(config)
        with pytest.raises(model.ModelError, match=words):
            model.parse(config, "x")

    @pytest.mark.parametrize(
        ("quantization", "read"),
        [
            ({}, None),
            ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
            (("int", 4), "w4a16"),
            (("float", 8), "fp8"),
            (("int", 8), "compressed-tensors 8-bit int"),
            ({"quant_method": "awq"}, "awq"),
        ],
    )
    def test_a_checkpoint_says_its_own_precision(self, quantization, read):
        config = json.loads((model.MODELS_DIR / "qwen3-vl-8b.json").read_text())
        if isinstance(quantization, tuple):
            kind, bits = quantization
            groups = {"group_0": {"weights": {"num_bits": bits, "type": kind}}}
            quantization = {"quant_method": "compressed-tensors", "config_groups": groups}
        config["quantization_config"] = quantization
        assert model.parse(config, "x").quantization == read


class TestImages:
    @pytest.mark.parametrize(
        ("size", "tokens"),
        [
            (Size(512, 512), 256),
            (Size(1024, 1024), 1024),
            (Size(1920, 1080), 2040),
            (Size(10_000, 10_000), 16_384),
            (Size(1, 1), 64),
            (Size(600, 20), 88),  # 19 x 1 cells would be below the least area; both sides grow, upwards
        ],
    )
    def test_a_picture_has_a_token_for_each_32_px_cell_after_resizing(self, size, tokens):
        assert images.tokens(size, EIGHT.vision) == tokens

    def test_halves_are_rounded_to_even_as_python_does(self):
        assert images.resized(Size(1136, 1136), EIGHT.vision) == Size(1152, 1152)  # 35.5 -> 36
        assert images.resized(Size(1104, 1104), EIGHT.vision) == Size(1088, 1088)  # 34.5 -> 34

    @settings(deadline=None)
    @given(squares, st.integers(65_536, images.MAX_PIXELS))
    def test_no_picture_exceeds_the_engines_budget(self, size, max_pixels):
        assert images.tokens(size, EIGHT.vision, max_pixels) <= images.most_tokens(EIGHT.vision, max_pixels)

    @settings(deadline=None)
    @given(squares, squares)
    def test_more_pixels_of_one_shape_never_have_fewer_tokens(self, one, other):
        small, large = sorted((one, other), key=lambda size: size.pixels)
        assert images.tokens(small, EIGHT.vision) <= images.tokens(large, EIGHT.vision)

    @pytest.mark.parametrize(("pixels", "tokens"), [(1024, 1), (262_144, 256), (1_310_720, 1280), (16_777_216, 16_384)])
    def test_the_profiled_picture_fills_the_budget(self, pixels, tokens):
        vision = EIGHT.vision
        assert images.most_tokens(vision, pixels) == max(tokens, 64 if pixels < images.MIN_PIXELS else 0)

    def test_a_shape_longer_than_200_to_1_is_passed_over_for_a_smaller_picture(self):
        assert images.most_tokens(EIGHT.vision, 211 * 1024) == 210  # 211 is prime: 211 x 1 cells is too long

    def test_a_budget_below_one_token_is_refused(self):
        with pytest.raises(images.SizeError, match="less than one visual token"):
            images.most_tokens(EIGHT.vision, 1023)

    @pytest.mark.parametrize(
        ("text", "size"), [("262144", Size(512, 512)), ("1920x1080", Size(1920, 1080)), ("8X9", Size(8, 9))]
    )
    def test_a_picture_is_given_by_area_or_by_size(self, text, size):
        assert images.parse_size(text) == size

    @pytest.mark.parametrize(
        ("text", "words"),
        [("0", "at least one pixel"), ("-4", "no picture"), ("axb", "no picture"), ("201x1", "more than 200 times")],
    )
    def test_what_is_no_picture_is_refused(self, text, words):
        with pytest.raises(images.SizeError, match=words):
            images.parse_size(text)


class TestKv:
    def test_a_token_of_the_8b_takes_147456_bytes_and_half_in_fp8(self):
        assert kv.layout(EIGHT.text).token_bytes == 147_456
        assert kv.layout(EIGHT.text, element_bytes=1).token_bytes == 73_728

    def test_kv_heads_are_divided_among_gpus_and_never_below_one(self):
        assert [kv.layout(EIGHT.text, 2, gpus).kv_heads for gpus in (1, 2, 8, 16)] == [8, 4, 1, 1]

    def test_one_full_sequence_of_the_8b_takes_36_gib(self):
        form = kv.layout(EIGHT.text)
        assert 262_144 * form.token_bytes == 36 * GIB
        assert not kv.capacity(36 * GIB, form, 262_144).holds_one_full_request  # the null block
        assert kv.capacity(36 * GIB + form.block_bytes, form, 262_144).holds_one_full_request

    def test_what_vllm_logs_is_less_than_its_blocks_where_the_context_is_no_multiple(self):
        held = kv.capacity(10 * kv.layout(EIGHT.text).block_bytes, kv.layout(EIGHT.text), 17)
        assert (held.blocks, held.logged_tokens, held.usable_tokens) == (10, 85, 144)

    @pytest.mark.parametrize(
        ("name", "gib", "context", "tokens", "concurrency"),
        [
            # vLLM 0.21, Qwen3-8B, LMCache issue 3430; its decoder is the 8B's.
            ("qwen3-vl-8b", 6.37, 16_384, 46_368, 2.83),
            # vLLM 0.10, Qwen3-0.6B, vllm-project/vllm pull 24577; its 28 layers store what the 2B's store.
            ("qwen3-vl-2b", 69.66, 4096, 652_144, 159.21),
        ],
    )
    def test_published_log_lines_are_reproduced(self, name, gib, context, tokens, concurrency):
        form = kv.layout(model.load(name).text)
        held = kv.capacity(int(gib * GIB), form, context)
        rounded_away = 0.005 * GIB / form.token_bytes + form.block_tokens  # the log shows hundredths of a GiB
        assert abs(held.logged_tokens - tokens) <= rounded_away
        assert held.full_requests == pytest.approx(concurrency, abs=0.02)

    def test_no_memory_holds_nothing(self):
        held = kv.capacity(-1, kv.layout(EIGHT.text), 16)
        assert (held.blocks, held.usable_tokens, held.logged_tokens, held.requests(1)) == (0, 0, 0, 0)

    @settings(deadline=None)
    @given(available, available, contexts)
    def test_more_bytes_never_hold_fewer_tokens(self, one, other, context):
        less, more = (kv.capacity(size, kv.layout(EIGHT.text), context) for size in sorted((one, other)))
        assert less.logged_tokens <= more.logged_tokens
        assert less.requests(context) <= more.requests(context)

    @settings(deadline=None)
    @given(available, contexts, contexts)
    def test_longer_requests_never_fit_more_often(self, size, one, other):
        short, long = sorted((one, other))
        held = kv.capacity(size, kv.layout(EIGHT.text), short)
        assert held.requests(long) <= held.requests(short)
        assert kv.capacity(size, kv.layout(EIGHT.text), long).full_requests <= held.full_requests

    @settings(deadline=None)
    @given(available, contexts)
    def test_an_fp8_cache_holds_at_least_twice_as_much(self, size, context):
        half, eighth = (kv.capacity(size, kv.layout(EIGHT.text, wide), context) for wide in (2, 1))
        assert eighth.blocks >= 2 * half.blocks

    @settings(deadline=None)
    @given(available, contexts, st.sampled_from([16, 128]))
    def test_the_logged_tokens_never_exceed_the_memory(self, size, context, block):
        form = kv.layout(EIGHT.text, block_tokens=block)
        held = kv.capacity(size, form, context)
        assert held.logged_tokens * form.token_bytes <= size


class TestWeights:
    @pytest.mark.parametrize(
        ("checkpoint", "gpu", "gib"),
        [(Checkpoint.BF16, A10, 16.33), (Checkpoint.FP8, H100, 9.86), (Checkpoint.W4A16, A10, 6.73)],
    )
    def test_the_8b_takes_what_its_checkpoints_take(self, checkpoint, gpu, gib):
        assert weights.per_gpu_bytes(EIGHT, checkpoint, gpu) / GIB == pytest.approx(gib, abs=0.005)

    def test_bf16_weights_are_two_bytes_a_parameter(self):
        assert weights.per_gpu_bytes(EIGHT, Checkpoint.BF16, A10) == 2 * EIGHT.parameters.total

    def test_a_tied_output_layer_is_stored_once_and_still_read(self):
        two = model.load("qwen3-vl-2b")
        assert two.parameters.output == 0
        assert weights.per_gpu_bytes(two, Checkpoint.BF16, A10) == 2 * two.parameters.total
        assert weights.output_bytes(two) == 2 * two.parameters.embedding

    def test_fp8_without_fp8_arithmetic_carries_larger_scales(self):
        assert weights.bytes_per_weight(Checkpoint.FP8, A10) > weights.bytes_per_weight(Checkpoint.FP8, L4) > 1

    def test_two_gpus_share_everything_but_the_vision_tower_and_norms(self):
        one, two = (weights.per_gpu_bytes(EIGHT, Checkpoint.BF16, A10, count) for count in (1, 2))
        whole = 2 * (EIGHT.parameters.vision + EIGHT.parameters.decoder_other)
        assert 2 * two == one + whole


class TestMemory:
    def test_graphs_are_counted_as_a_published_log_shows_them(self):
        assert memory.graphs(256) == 51 + 35  # LMCache issue 3430: PIECEWISE=51 (largest=512), FULL=35 (largest=256)

    @settings(deadline=None)
    @given(st.integers(1, 2000))
    def test_more_requests_never_have_fewer_graphs(self, requests):
        assert memory.graphs(requests) <= memory.graphs(requests + 1) <= 51 * 2

    def test_the_encoder_cache_holds_a_step_or_one_largest_picture(self):
        engine = Engine(A100, Checkpoint.BF16, 65_536, max_batched_tokens=8192)
        assert memory.encoder_budget_tokens(EIGHT, engine) == 16_384
        small = dataclasses.replace(engine, max_image_pixels=1_310_720)
        assert memory.encoder_budget_tokens(EIGHT, small) == 8192
        assert memory.profiled_tokens(EIGHT, small) == 6 * 1280

    def test_the_parts_and_the_cache_make_up_what_vllm_may_use(self):
        budget = memory.budget(EIGHT, Engine(A10, Checkpoint.FP8, 16_384))
        assert budget.used + budget.available == budget.requested == -(-A10.visible_bytes * 92 // 100)

    def test_it_is_negative_where_the_weights_alone_are_too_large(self):
        assert memory.budget(model.load("qwen3-vl-32b"), Engine(A10, Checkpoint.BF16, 4096)).available < 0

    @settings(deadline=None)
    @given(st.integers(1, 1024), st.integers(256, 32_768), st.integers(65_536, images.MAX_PIXELS))
    def test_larger_steps_pictures_and_batches_never_leave_more_cache(self, requests, batched, pixels):
        engine = Engine(
            A100,
            Checkpoint.BF16,
            8192,
            max_requests=requests,
            max_batched_tokens=batched,
            max_image_pixels=pixels // 2 + 32_768,
        )
        before = memory.budget(EIGHT, engine).available
        for larger in (
            dataclasses.replace(engine, max_requests=requests + 64),
            dataclasses.replace(engine, max_batched_tokens=batched * 2),
            dataclasses.replace(engine, checkpoint=Checkpoint.BF16, memory_utilization=0.9),
        ):
            assert memory.budget(EIGHT, larger).available <= before

    @settings(deadline=None)
    @given(st.sampled_from([1, 2, 4, 8]), st.sampled_from(list(Checkpoint)), st.sampled_from(list(gpus.table())))
    def test_more_gpus_never_leave_less_cache_on_each(self, count, checkpoint, name):
        engine = Engine(gpus.table()[name], checkpoint, 8192, gpus_per_engine=count)
        double = dataclasses.replace(engine, gpus_per_engine=2 * count)
        assert memory.budget(EIGHT, double).available >= memory.budget(EIGHT, engine).available

    def test_the_kv_dtype_changes_the_layout_alone(self):
        engine = Engine(A10, Checkpoint.FP8, 8192)
        fp8 = dataclasses.replace(engine, kv_dtype=KvDtype.FP8)
        assert memory.budget(EIGHT, fp8) == memory.budget(EIGHT, engine)
        assert 2 * fp8.layout(EIGHT).token_bytes == engine.layout(EIGHT).token_bytes


class TestGpus:
    def test_they_are_those_of_the_profiles_from_small_to_large(self):
        assert list(gpus.table()) == ["t4", "l4", "a10", "a100-40", "l40s", "a100-80", "h100"]

    @pytest.mark.parametrize("gpu", gpus.table().values(), ids=lambda gpu: gpu.name)
    def test_each_sees_a_little_less_than_was_sold(self, gpu):
        assert 0.9 * gpu.memory_gib * GIB < gpu.visible_bytes < gpu.memory_gib * GIB

    @pytest.mark.parametrize("gpu", gpus.table().values(), ids=lambda gpu: gpu.name)
    def test_it_has_a_rate_for_just_the_arithmetic_of_its_capability(self, gpu):
        assert (gpu.bf16_flops_per_s is not None) == gpu.has_bf16 == gpu.has_fp8_kv
        assert (gpu.fp8_flops_per_s is not None) == gpu.has_fp8
