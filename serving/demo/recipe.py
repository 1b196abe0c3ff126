"""Every number of the demo checkpoint in one place: architecture, picture budget, training schedule.

Data only; imports nothing heavy, so that tests can read it without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

PATCH_PX: Final = 16
MERGE: Final = 2
CELL_PX: Final = PATCH_PX * MERGE
"""One visual token covers 32 x 32 px of the resized picture."""

MIN_PIXELS: Final = 40_960
MAX_PIXELS: Final = 65_536
"""The range every picture is resized to (40 to 64 visual tokens). Trained range and served range must be the same:
served wider than trained, a feasibility run lost 20 points of accuracy."""

VISION_WIDTH: Final = 128
VISION_LAYERS: Final = 4
VISION_MLP: Final = 320
TEXT_WIDTH: Final = 128
TEXT_LAYERS: Final = 4
TEXT_MLP: Final = 320
HEAD_DIM: Final = 32
TEXT_HEADS: Final = 4
TEXT_KV_HEADS: Final = 2
MAX_POSITIONS: Final = 4096

MAX_ITEMS: Final = 3

GROUNDED_LAYER: Final = 1
"""The text layer whose first half of heads learns where to look."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the training goes; shares are of the whole run."""

    seed: int = 20_261
    pool_pictures: int = 24_000
    steps: int = 3_600
    processes: int = 2
    """Each trains on its own batch with one thread; their gradients are averaged."""
    pictures_a_batch: int = 12
    questions_a_picture: int = 6
    vision_share: float = 0.17
    """First the vision tower alone, on what each visual token shows."""
    simple_share: float = 0.4
    """Until then mostly short questions; then the full mix."""
    warmup_share: float = 0.01
    learning_rate: float = 1.4e-3
    muon_times: float = 2.0
    """Muon's learning rate, as a multiple of AdamW's."""
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    auxiliary_weight: float = 0.5
    grounding_weight: float = 0.15


def config(vocabulary: int, tokens: dict[str, int]) -> dict[str, Any]:
    """Give config.json's content for a vocabulary of this size; `tokens` maps special tokens to their ids."""
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": tokens["<|image_pad|>"],
        "video_token_id": tokens["<|video_pad|>"],
        "vision_start_token_id": tokens["<|vision_start|>"],
        "vision_end_token_id": tokens["<|vision_end|>"],
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": vocabulary,
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": TEXT_MLP,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": TEXT_HEADS,
            "num_key_value_heads": TEXT_KV_HEADS,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "max_position_embeddings": MAX_POSITIONS,
            "rms_norm_eps": 1e-6,
            "attention_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": tokens["<|endoftext|>"],
            "eos_token_id": tokens["<|im_end|>"],
            "dtype": "bfloat16",
            "rope_theta": 10_000.0,
            "rope_scaling": {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True},
        },
        "vision_config": {
            "model_type": "qwen3_vl_vision",
            "depth": VISION_LAYERS,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": VISION_MLP,
            "num_heads": VISION_WIDTH // HEAD_DIM,
            "in_channels": 3,
            "patch_size": PATCH_PX,
            "temporal_patch_size": 2,
            "spatial_merge_size": MERGE,
            "out_hidden_size": TEXT_WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 2],
            "hidden_act": "gelu_pytorch_tanh",
        },
    }
