"""The profiles against the arithmetic: what they promise fits on their GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving import profile
from serving.capacity import fits, images, load, model, overview, settings
from serving.capacity.question import Dtype, KvDtype, Load, Question
from serving.capacity.weights import Checkpoint

EIGHT = model.load("qwen3-vl-8b")
FOR_GPUS = [name for name in profile.names() if settings.gpu_of(name)]
USUAL = Load(1, 64, 128, images.Size(512, 512))
MAX_PICTURES = 4


def engine_of(name):
    found = profile.load(name)
    return settings.engine_of(found, settings.gpu_of(name), settings.checkpoint_of(found.model) or Checkpoint.W4A16)


def made(**flags):
    return profile.Profile("made", "made", None, {"max-model-len": 4096, **flags}, {})


def test_every_profile_but_the_cpus_is_for_a_gpu_of_the_table():
    assert set(profile.names()) - set(FOR_GPUS) == {"cpu"}
    assert len(FOR_GPUS) >= 7


@pytest.mark.parametrize("name", FOR_GPUS)
def test_the_context_of_a_profile_fits_with_room_to_spare(name):
    question = Question(EIGHT, engine_of(name), USUAL)
    assert fits.fits(question).reasons == ()
    assert not fits.is_tight(question)


@pytest.mark.parametrize("name", FOR_GPUS)
def test_as_many_usual_requests_as_a_profile_admits_fit_into_its_cache(name):
    question = Question(EIGHT, engine_of(name), USUAL)
    held = load.kv_capacity(question)
    assert held.requests(question.request_tokens) >= question.engine.max_requests


@pytest.mark.parametrize("name", FOR_GPUS)
def test_the_largest_picture_of_a_profile_goes_into_its_context(name):
    engine = engine_of(name)
    largest = images.most_tokens(EIGHT.vision, engine.max_image_pixels)
    assert largest < engine.context_tokens


@pytest.mark.parametrize(
    ("name", "gpu"), [("l4", "l4"), ("l40s", "l40s"), ("a100-80-x2", "a100-80"), ("4xh100", "h100"), ("a10", "a10")]
)
def test_the_gpu_is_the_longest_name_in_the_profiles(name, gpu):
    assert settings.gpu_of(name).name == gpu


def test_a_machine_without_a_gpu_has_none():
    assert settings.gpu_of("cpu") is None


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct-FP8", "fp8"),
        ("Qwen/Qwen3-VL-8B-Instruct", "bf16"),
        ("somebody/Qwen3-VL-8B-AWQ", "w4a16"),
        ("/models/qwen3-vl-w4a16", "w4a16"),
        (None, None),
    ],
)
def test_a_published_name_tells_the_precision(name, checkpoint):
    assert settings.checkpoint_of(name) == checkpoint


def test_what_a_profile_leaves_out_is_vllms_default():
    engine = settings.engine_of(made(), settings.gpu_of("a10"), Checkpoint.FP8)
    assert (engine.max_requests, engine.max_batched_tokens, engine.memory_utilization) == (256, 2048, 0.92)
    assert (engine.gpus_per_engine, engine.max_image_pixels) == (1, images.MAX_PIXELS)
    assert (engine.dtype, engine.kv_dtype) == (Dtype.AUTO, KvDtype.AUTO)


@pytest.mark.parametrize(("gpu", "expected"), [("h100", (1024, 8192)), ("a100-80", (256, 2048))])
def test_vllms_defaults_depend_on_the_gpu(gpu, expected):
    engine = settings.engine_of(made(), settings.gpu_of(gpu), Checkpoint.FP8)
    assert (engine.max_requests, engine.max_batched_tokens) == expected


def test_vllms_defaults_are_largest_on_the_largest_gpus():
    b200 = dataclasses.replace(settings.gpu_of("h100"), visible_bytes=178 << 30)
    assert settings.engine_of(made(), b200, Checkpoint.FP8).max_batched_tokens == 16384


@pytest.mark.parametrize(("word", "dtype"), [("bfloat16", "bfloat16"), ("float16", "half"), ("auto", "auto")])
def test_a_profiles_dtype_is_taken_in_vllms_words(word, dtype):
    assert settings.engine_of(made(dtype=word), settings.gpu_of("t4"), Checkpoint.W4A16).dtype == dtype


def test_what_a_profile_says_is_taken():
    flags = {
        "max-num-seqs": 7,
        "max-num-batched-tokens": 512,
        "gpu-memory-utilization": 0.5,
        "tensor-parallel-size": 2,
        "kv-cache-dtype": "fp8_e4m3",
        "dtype": "half",
        "mm-processor-kwargs": {"size": {"longest_edge": 262_144}},
    }
    engine = settings.engine_of(made(**flags), settings.gpu_of("t4"), Checkpoint.W4A16)
    assert dataclasses.asdict(engine) | {"gpu": None} == {
        "gpu": None,
        "checkpoint": "w4a16",
        "context_tokens": 4096,
        "gpus_per_engine": 2,
        "kv_dtype": "fp8",
        "dtype": "half",
        "max_requests": 7,
        "max_batched_tokens": 512,
        "memory_utilization": 0.5,
        "max_image_pixels": 262_144,
    }


def test_a_profile_without_a_context_length_is_refused():
    found = profile.Profile("made", "made", None, {}, {})
    with pytest.raises(settings.SettingsError, match="no max-model-len"):
        settings.engine_of(found, settings.gpu_of("a10"), Checkpoint.FP8)


def test_a_kv_dtype_that_is_not_computed_is_refused():
    with pytest.raises(settings.SettingsError, match="'nvfp4' is not computed"):
        settings.engine_of(made(**{"kv-cache-dtype": "nvfp4"}), settings.gpu_of("h100"), Checkpoint.FP8)


class TestOverview:
    def test_the_page_is_in_step_with_the_profiles(self):
        page = Path(__file__).parents[3] / "docs" / "capacity.md"
        assert overview.main(["--check", str(page)]) == 0

    def test_it_has_a_row_for_each_gpu_profile(self, capsys):
        assert overview.main([]) == 0
        rows = capsys.readouterr().out.splitlines()[2:]
        assert sorted(row.split("|")[1].strip() for row in rows) == sorted(FOR_GPUS)
        assert len({row.count("|") for row in rows}) == 1

    def test_writing_puts_a_stale_page_in_step(self, tmp_path, capsys):
        page = tmp_path / "page.md"
        page.write_text(f"before\n{overview.BEGIN}\nstale\n{overview.END}\nafter\n")
        assert overview.main(["--check", str(page)]) == 1
        assert "out of step" in capsys.readouterr().err
        assert overview.main(["--write", str(page)]) == 0
        assert overview.main(["--check", str(page)]) == 0
        assert page.read_text().startswith("before\n")
        assert page.read_text().endswith("after\n")
        assert "stale" not in page.read_text()

    def test_a_page_without_markers_is_refused(self, tmp_path, capsys):
        page = tmp_path / "page.md"
        page.write_text("nothing\n")
        assert overview.main(["--write", str(page)]) == 1
        assert "has no line" in capsys.readouterr().err
        assert page.read_text() == "nothing\n"
