"""The rule of refusal, and what it proposes instead."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.capacity import fits, gpus, images, model
from serving.capacity.question import Dtype, Engine, KvDtype, Load, Question
from serving.capacity.weights import Checkpoint

GIB = 1 << 30
EIGHT = model.load("qwen3-vl-8b")


def ask(gpu, checkpoint, context=8192, *, read=EIGHT, output=128, **engine):
    load = Load(1, 64, output, images.Size(512, 512))
    usual = {"max_requests": 32, "max_batched_tokens": 4096, "max_image_pixels": 1_310_720}
    return Question(read, Engine(gpus.table()[gpu], Checkpoint(checkpoint), context, **(usual | engine)), load)


def changes(verdict):
    return [option.changes for option in verdict.alternatives]


def test_what_fits_has_no_reason_and_no_alternative():
    assert fits.fits(ask("a10", "fp8", 16_384)) == fits.Verdict(())
    assert fits.fits(ask("a10", "fp8", 16_384)).fits


def test_bf16_on_a_t4_is_refused_for_the_dtype_and_the_memory():
    verdict = fits.fits(ask("t4", "bf16", dtype=Dtype.BFLOAT16))
    assert not verdict.fits
    assert len(verdict.reasons) == 2
    assert "compute capability 7.5 and bfloat16 needs 8.0" in verdict.reasons[0]
    assert "the weights alone are 16.33 GiB" in verdict.reasons[1]
    assert changes(verdict)[0] == "--dtype half --checkpoint fp8"


def test_a_small_model_in_bf16_on_a_t4_works_as_half():
    verdict = fits.fits(ask("t4", "bf16", read=model.load("qwen3-vl-2b"), dtype=Dtype.BFLOAT16))
    assert changes(verdict)[0] == "--dtype half"


def test_a_t4_left_to_choose_falls_back_to_half_as_vllm_does():
    assert fits.fits(ask("t4", "bf16", read=model.load("qwen3-vl-2b"), dtype=Dtype.AUTO)).fits
    verdict = fits.fits(ask("t4", "bf16", dtype=Dtype.AUTO))
    assert len(verdict.reasons) == 1
    assert changes(verdict)[0] == "--checkpoint fp8"


def test_the_8b_in_bf16_at_64k_on_24_gb_is_refused_with_the_sizes_and_what_works():
    verdict = fits.fits(ask("a10", "bf16", 65_536))
    (reason,) = verdict.reasons
    assert "weights (16.33 GiB)" in reason
    assert "one request of 65,536 tokens takes 9.00 GiB" in reason
    assert changes(verdict) == [
        "--checkpoint fp8 --kv-dtype fp8",
        "--context 15360",
        "--gpus-per-engine 2",
        "--gpu a100-40",
    ]


def test_an_fp8_cache_on_a_t4_is_refused():
    verdict = fits.fits(ask("t4", "w4a16", dtype=Dtype.HALF, kv_dtype=KvDtype.FP8))
    assert "FP8 KV cache needs compute capability 8.0" in verdict.reasons[0]
    assert changes(verdict) == ["--gpu l4"]


@pytest.mark.parametrize("count", [3, 16])
def test_gpus_that_cannot_share_the_heads_are_refused(count):
    verdict = fits.fits(ask("a10", "fp8", gpus_per_engine=count))
    assert "cannot share 32 attention heads" in verdict.reasons[0]


def test_a_model_of_few_heads_is_not_divided_further():
    few = dataclasses.replace(EIGHT, text=dataclasses.replace(EIGHT.text, heads=4))
    assert "cannot share 4 attention heads" in fits.fits(ask("a10", "fp8", read=few, gpus_per_engine=8)).reasons[0]


def test_a_context_beyond_the_models_is_refused_and_shortened():
    verdict = fits.fits(ask("h100", "fp8", 300_000))
    assert "takes at most 262,144 tokens" in verdict.reasons[0]
    assert changes(verdict)[0] == "--context 262144"


def test_a_request_longer_than_the_context_is_refused_and_the_context_lengthened():
    verdict = fits.fits(ask("a10", "fp8", 512, output=500))
    assert "do not go into a context of 512" in verdict.reasons[0]
    assert changes(verdict)[0] == "--context 1024"


def test_where_nothing_helps_nothing_is_proposed():
    verdict = fits.fits(ask("h100", "bf16", 300_000, output=400_000))
    assert verdict.alternatives == ()


def test_what_fits_with_little_to_spare_is_called_tight():
    question = ask("l4", "fp8", 65_536)
    assert fits.fits(question).fits
    assert fits.is_tight(question)
    assert not fits.is_tight(ask("l4", "fp8", 16_384))


def test_an_engine_is_judged_without_a_load_and_told_in_vllms_own_flags():
    engine = ask("a10", "bf16", 65_536).engine
    verdict = fits.can_start(EIGHT, engine)
    told = [fits.changes(engine, option.question.engine, fits.RUN_OPTIONS) for option in verdict.alternatives]
    assert told == [
        "a --model in fp8 --kv-cache-dtype fp8",
        "--max-model-len 15360",
        "--tensor-parallel-size 2",
        "a machine with a100-40",
    ]
    assert fits.can_start(EIGHT, ask("a10", "fp8", 64).engine).fits


questions = st.builds(
    ask,
    st.sampled_from(list(gpus.table())),
    st.sampled_from(list(Checkpoint)),
    st.integers(64, 400_000),
    read=st.sampled_from([model.load(name) for name in model.known()]),
    output=st.integers(1, 20_000),
    gpus_per_engine=st.sampled_from([1, 2, 3, 4, 8]),
    kv_dtype=st.sampled_from(list(KvDtype)),
    dtype=st.sampled_from(list(Dtype)),
    max_requests=st.integers(1, 1024),
    max_batched_tokens=st.sampled_from([2048, 8192, 16_384]),
    max_image_pixels=st.sampled_from([262_144, 1_310_720, images.MAX_PIXELS]),
)


@given(questions)
@settings(deadline=None)
def test_everything_that_is_proposed_fits_with_room_to_spare(question):
    verdict = fits.fits(question)
    assert not (verdict.fits and verdict.alternatives)
    for option in verdict.alternatives:
        assert option.changes
        assert fits.fits(option.question).fits
        assert not fits.is_tight(option.question)


@given(questions)
@settings(deadline=None)
def test_what_fits_also_fits_with_a_shorter_context_or_more_memory(question):
    if not fits.fits(question).fits:
        return
    shorter = max(question.request_tokens, question.engine.context_tokens // 2)
    engine = dataclasses.replace(question.engine, context_tokens=shorter)
    assert fits.fits(dataclasses.replace(question, engine=engine)).fits
    larger = dataclasses.replace(question.engine.gpu, visible_bytes=question.engine.gpu.visible_bytes + GIB)
    engine = dataclasses.replace(question.engine, gpu=larger)
    assert fits.fits(dataclasses.replace(question, engine=engine)).fits


@given(questions)
@settings(deadline=None)
def test_the_proposed_context_is_the_longest_that_is_not_tight(question):
    found = fits.largest_context_tokens(question)
    if found == 0 or found + fits.CONTEXT_STEP_TOKENS > question.model.text.max_context_tokens:
        return
    at, beyond = (
        dataclasses.replace(question.engine, context_tokens=tokens)
        for tokens in (found, found + fits.CONTEXT_STEP_TOKENS)
    )
    assert not fits.is_tight(dataclasses.replace(question, engine=at))
    assert fits.is_tight(dataclasses.replace(question, engine=beyond))
