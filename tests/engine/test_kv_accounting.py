"""The plan's arithmetic against the software it speaks of: transformers' model and resizing, vLLM's KV cache.

Two processes of the engine's environment, in which nothing but the two programs below runs. One instantiates models on
the meta device and resizes. The other starts real vLLM on the CPU with the demo checkpoint, for one KV budget after the
other, and then asks vLLM's own functions about many more, and about the 8B's cache on GPUs.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from serving.capacity import gpus, images, kv, memory, model
from serving.capacity.question import Engine
from serving.capacity.weights import Checkpoint

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "serving" / "demo" / "checkpoint"
DEMO = model.load(str(CHECKPOINT))
EIGHT = model.load("qwen3-vl-8b")
GIB = 1 << 30
RESULT = "RESULT "

TRANSFORMERS = """
import itertools, json, sys
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

asked = json.loads(sys.argv[1])
counts = {}
for file in asked["configs"]:
    with open(file) as config, torch.device("meta"):
        built = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**json.load(config)))
    counts[file] = sum(parameter.numel() for parameter in built.parameters())
resized = [
    smart_resize(height, width, factor=32, min_pixels=least, max_pixels=most)
    for (width, height), (least, most) in itertools.product(asked["sizes"], asked["bounds"])
]
print(asked["result"] + json.dumps({"counts": counts, "resized": resized}))
"""

VLLM = """
import dataclasses, json, sys
import torch
from vllm import LLM
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.encoder_budget import MultiModalBudget
from vllm.v1.core.kv_cache_utils import generate_scheduler_kv_cache_config, get_kv_cache_capacity, get_kv_cache_configs

asked = json.loads(sys.argv[1])
started = []
for size_bytes, context, pixels in asked["starts"]:
    llm = LLM(
        asked["model"],
        kv_cache_memory_bytes=size_bytes,
        max_model_len=context,
        max_num_seqs=4,
        enforce_eager=True,
        limit_mm_per_prompt={"image": 1, "video": 0},
        mm_processor_kwargs={"size": {"shortest_edge": 1024, "longest_edge": pixels}},
    )
    config, core = llm.llm_engine.vllm_config, llm.llm_engine.engine_core.engine_core
    pictures = MultiModalBudget(config, MULTIMODAL_REGISTRY)
    started.append({
        "blocks": config.cache_config.num_gpu_blocks,
        "block_tokens": config.cache_config.block_size,
        "batched": config.scheduler_config.max_num_batched_tokens,
        "most": pictures.mm_max_toks_per_item["image"],
        "budget": pictures.get_encoder_budget(),
        "profiled": pictures.mm_max_items_per_batch["image"] * pictures.mm_max_toks_per_item["image"],
    })
    (specs,) = core.model_executor.get_kv_cache_specs()
    core.shutdown()
    del llm, core
    cleanup_dist_env_and_memory()

def capacity(form, size_bytes, context):
    config.model_config.max_model_len = context
    try:
        configs = get_kv_cache_configs(config, [form], [size_bytes])
    except ValueError:
        return None
    chosen = generate_scheduler_kv_cache_config(configs)
    tokens, concurrency = get_kv_cache_capacity(config, chosen)
    return chosen.num_blocks, tokens, concurrency

any_spec = next(iter(specs.values()))
own = {**specs}
answers = [capacity(own, *case) for case in asked["demo"]]
others = []
for heads, element_bytes, size_bytes, context in asked["eight"]:
    dtype = {1: torch.uint8, 2: torch.bfloat16}[element_bytes]
    one = dataclasses.replace(
        any_spec, block_size=16, num_kv_heads=heads, head_size=128, head_size_v=128, dtype=dtype, max_tp_shards=None
    )
    others.append(capacity({f"layers.{layer}": one for layer in range(36)}, size_bytes, context))
print(asked["result"] + json.dumps({"started": started, "demo": answers, "eight": others}))
"""

CONFIGS = [*map(str, sorted(model.MODELS_DIR.glob("*.json"))), str(CHECKPOINT / "config.json")]
LENGTHS = (1, 16, 31, 33, 47, 48, 81, 500, 512, 1080, 1104, 1136, 1920, 3000, 4000)
SIZES = [size for size in itertools.product(LENGTHS, LENGTHS) if max(size) <= images.MAX_ASPECT * min(size)]
BOUNDS = [(65_536, 16_777_216), (65_536, 1_310_720), (40_960, 65_536)]

STARTS = [
    # (bytes of KV cache, context, pixels of the largest picture). Contexts that are and are not a multiple of the
    # CPU's block of 128 tokens, bytes that are and are not one of a block's.
    (64 << 20, 2048, 65_536),
    (200_000_001, 2000, 211 * 1024),
    (GIB, 777, 262_144),
]
SAID = re.compile(r"CPU KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
TRICKY = (0, 1, 12_345_678, 250_000_000, 3 * GIB - 1, 3 * GIB)
DEMO_CASES = list(itertools.product(TRICKY, (1, 127, 128, 129, 777, 2048)))
EIGHT_CASES = [
    (heads, element, size_bytes, context)
    for (heads, element), size_bytes, context in itertools.product(
        [(8, 2), (8, 1), (4, 2), (2, 2)],
        (*TRICKY, 9_717_154_816, 36 * GIB, 36 * GIB + 16 * 147_456, 59 * GIB),
        (17, 8192, 16_384, 65_536, 262_144),
    )
]


def ask(program, **question):
    python = Path(os.environ.get("SERVING_ENGINE_PYTHON") or ROOT / ".venv-engine" / "bin" / "python")
    if not python.exists():
        pytest.fail(f"{python} does not exist: run `make engine`")
    run = subprocess.run(
        [python, "-c", program, json.dumps({"result": RESULT, **question})],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's core in this process, so that it can be asked
            "VLLM_HOST_IP": "127.0.0.1",
        },
    )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said[-4000:]
    (line,) = (line for line in run.stdout.splitlines() if line.startswith(RESULT))
    return json.loads(line.removeprefix(RESULT)), said


@pytest.fixture(scope="module")
def transformers():
    answer, _ = ask(TRANSFORMERS, configs=CONFIGS, sizes=SIZES, bounds=BOUNDS)
    return answer


@pytest.fixture(scope="module")
def vllm():
    answer, said = ask(VLLM, model=str(CHECKPOINT), starts=STARTS, demo=DEMO_CASES, eight=EIGHT_CASES)
    return answer | {"said": SAID.findall(said)}


class TestTransformers:
    @pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.removeprefix(str(ROOT)))
    def test_the_instantiated_model_has_the_counted_parameters_to_the_unit(self, transformers, config):
        assert model.load(config).parameters.total == transformers["counts"][config]

    def test_the_8b_has_8767123696(self, transformers):
        assert transformers["counts"][str(model.MODELS_DIR / "qwen3-vl-8b.json")] == 8_767_123_696

    def test_every_picture_is_resized_alike(self, transformers):
        ours = [
            images.resized(images.Size(*size), EIGHT.vision, most, least)
            for size, (least, most) in itertools.product(SIZES, BOUNDS)
        ]
        assert [[size.height_px, size.width_px] for size in ours] == transformers["resized"]
        assert len(ours) > 500


def layout(block_tokens=kv.CPU_BLOCK_TOKENS):
    return kv.layout(DEMO.text, block_tokens=block_tokens)


@pytest.mark.timeout(180)
class TestVllm:
    def test_each_start_logs_its_capacity_once(self, vllm):
        assert len(vllm["said"]) == len(STARTS) == 3

    @pytest.mark.parametrize("number", range(len(STARTS)))
    def test_an_engine_logs_the_foretold_kv_cache(self, vllm, number):
        size_bytes, context, _ = STARTS[number]
        foretold = kv.capacity(size_bytes, layout(), context)
        assert vllm["said"][number] == (
            f"{foretold.logged_tokens:,}",
            f"{context:,}",
            f"{foretold.full_requests:.2f}",
        )
        assert vllm["started"][number]["blocks"] == foretold.blocks
        assert vllm["started"][number]["block_tokens"] == kv.CPU_BLOCK_TOKENS

    @pytest.mark.parametrize("number", range(len(STARTS)))
    def test_an_engine_has_the_foretold_encoder_budget(self, vllm, number):
        _, context, pixels = STARTS[number]
        started = vllm["started"][number]
        engine = Engine(
            gpus.table()["a10"],
            Checkpoint.BF16,
            context,
            max_batched_tokens=started["batched"],
            max_image_pixels=pixels,
        )
        assert started["most"] == images.most_tokens(DEMO.vision, pixels)
        assert started["budget"] == memory.encoder_budget_tokens(DEMO, engine)

    def test_vllms_functions_agree_for_the_demo_at_any_budget(self, vllm):
        foretold = [kv.capacity(size_bytes, layout(), context) for size_bytes, context in DEMO_CASES]
        assert [as_vllm_says(held) for held in foretold] == vllm["demo"]

    def test_vllms_functions_agree_for_the_8b_at_any_budget_precision_and_number_of_gpus(self, vllm):
        foretold = [
            kv.capacity(size_bytes, kv.layout(EIGHT.text, element_bytes, 8 // heads), context)
            for heads, element_bytes, size_bytes, context in EIGHT_CASES
        ]
        assert [as_vllm_says(held) for held in foretold] == vllm["eight"]
        assert None in vllm["eight"]  # some are refused, and just those


def as_vllm_says(held):
    """Blocks, tokens and concurrency, or None where vLLM refuses to start."""
    if not held.holds_one_full_request:
        return None
    return [held.blocks, held.logged_tokens, held.full_requests]
