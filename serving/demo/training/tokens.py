"""Builds the checkpoint's tokenizer: byte-level BPE over the shop's small language, with Qwen3-VL's special tokens.

English words become one token each. Chinese is learned word by word (and otherwise character by character): trained
on running text, whole phrases would merge and an unseen phrasing would be cut into unseen tokens.
"""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from serving.demo import recipe
from serving.demo.phrasings import HELLO, NEEDS_PICTURE, PHRASINGS
from serving.demo.questions import KINDS, ask
from serving.demo.scenes import scene
from serving.demo.words import LANGUAGES, ZH_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

SYSTEM_PROMPTS: Final = (
    "You are a helpful assistant.",
    "You are a shop assistant.",
    "Answer briefly.",
    "You are Qwen, a helpful assistant.",
    "You describe product photos for an online shop.",
    "你是一个有用的助手。",
    "你是一名电商助手，请简短回答。",
)

_QWEN_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_EXTRA_WORDS: Final = ("图片", "照片", "商品", "什么", "颜色", "花纹", "图案", "标签", "多少", "没有")
_CHINESE: Final = re.compile(
    "(" + "|".join(sorted((*ZH_WORDS, *_EXTRA_WORDS), key=len, reverse=True)) + "|[\u3000-\uffef])"
)

CHAT_TEMPLATE: Final = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or part.type == 'image_url' or 'image' in part or 'image_url' in part -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- endif -%}
{%- endfor -%}
{%- for part in message.content -%}
{%- if 'text' in part -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
"""Pictures come first, whatever their place in the message: that is how the model was trained."""


def corpus() -> Iterator[str]:
    """Yield the text the vocabulary is made of, Chinese cut into words."""
    dice = random.Random(7)  # noqa: S311 - a corpus, not a secret
    for (name, _), texts in PHRASINGS.items():
        for text in texts:
            yield from _cut(text) * (1 if name == "other" else 20)
    for text in (*HELLO.values(), *NEEDS_PICTURE.values(), *SYSTEM_PROMPTS, "system", "user", "assistant", "\n"):
        yield from _cut(text) * 50
    for seed in range(3000):
        for language in LANGUAGES:
            question = ask(scene(seed), dice.choice(KINDS), language, dice)
            for text in (question.text, question.text.lower(), question.answer):
                yield from _cut(text)


def _cut(text: str) -> list[str]:
    return [part for part in _CHINESE.split(text) if part]


def build() -> Tokenizer:
    """Train the tokenizer; the same source text always gives the same one."""
    tokenizer = Tokenizer(BPE(ignore_merges=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = BpeTrainer(
        vocab_size=1100, min_frequency=10, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write every file of the checkpoint but the weights and the card."""
    ids: dict[str, int] = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    tokenizer.save(str(folder / "tokenizer.json"))
    size = {"shortest_edge": recipe.MIN_PIXELS, "longest_edge": recipe.MAX_PIXELS}
    patches = {"patch_size": recipe.PATCH_PX, "temporal_patch_size": 2, "merge_size": recipe.MERGE}
    scale = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    files: dict[str, dict[str, Any]] = {
        "config.json": recipe.config(tokenizer.get_vocab_size(), ids),
        "generation_config.json": {
            "do_sample": False,
            "temperature": 0.0,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": recipe.MAX_POSITIONS,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "additional_special_tokens": list(SPECIAL[1:]),
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "clean_up_tokenization_spaces": False,
        },
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "processor_class": "Qwen3VLProcessor",
            "size": size,
            **patches,
            **scale,
        },
        "video_preprocessor_config.json": {
            "video_processor_type": "Qwen3VLVideoProcessor",
            "processor_class": "Qwen3VLProcessor",
            "size": size,
            **patches,
            **scale,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
