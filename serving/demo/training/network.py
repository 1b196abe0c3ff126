"""Runs a stock Qwen3VLForConditionalGeneration the fast way for training: same weights, same numbers, less work.

Pictures of one grid are encoded as a batch; each is encoded once and several questions are read in one sequence.
The stock module only holds the parameters; `verify` compares the logits with those of its own forward pass.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from serving.demo import recipe

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Seen:
    """Pictures after the vision tower; tensors are (pictures, visual tokens, text width)."""

    tokens: Tensor
    deep: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """Sequences to read: one row a picture, holding its prefix and several questions."""

    ids: Tensor
    """(rows, length) token ids."""
    positions: Tensor
    """(3, rows, length): time, height and width of M-RoPE."""
    allowed: Tensor
    """(rows, length, length) bool: which position may look at which."""
    picture: slice
    """Where the visual tokens stand, the same in every row."""
    looking: Tensor
    """(rows, looks) positions whose attention is wanted."""


def build(config: Mapping[str, Any], seed: int) -> Qwen3VLForConditionalGeneration:
    """Make the model with fresh weights of standard deviation 1/sqrt(fan in)."""
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**config))
    model.float()
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            nn.init.constant_(weight, 1.0 if name.endswith("weight") else 0.0)
        elif "embed_tokens" in name or "pos_embed" in name:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        elif "patch_embed" in name:
            # Both frames of a still picture are the same: their weights add up.
            nn.init.normal_(weight, std=0.5 * (weight[0].numel() / 2) ** -0.5)
        else:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return model


def half_precision(model: Qwen3VLForConditionalGeneration) -> Qwen3VLForConditionalGeneration:
    """Copy the model to bfloat16, as it will be served, but for the two tables whose gradients add up many rows."""
    twin = copy.deepcopy(model).to(torch.bfloat16)
    for table in (twin.model.language_model.embed_tokens, twin.model.visual.pos_embed):
        table.float()
    twin.tie_weights()
    twin.model.visual.rotary_pos_emb.inv_freq = model.model.visual.rotary_pos_emb.inv_freq
    twin.model.language_model.rotary_emb.inv_freq = model.model.language_model.rotary_emb.inv_freq
    return twin


def _turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + _turned(x) * sin


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention written out: for these short sequences twice as fast on a CPU as the fused kernel's backward pass."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return torch.softmax(scores if mask is None else scores + mask, dim=-1) @ value


def _block_order(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of each patch, in the order of 2 x 2 merge blocks."""
    merge = recipe.MERGE
    row = torch.arange(rows).view(rows // merge, merge, 1, 1).expand(-1, -1, columns // merge, merge)
    column = torch.arange(columns).view(1, 1, columns // merge, merge).expand(rows // merge, merge, -1, -1)
    return row.permute(0, 2, 1, 3).reshape(-1), column.permute(0, 2, 1, 3).reshape(-1)


def _learned_places(table: Tensor, row: Tensor, column: Tensor, rows: int, columns: int) -> Tensor:
    """Sample the square table of learned positions bilinearly, corners aligned, at each patch."""
    side = math.isqrt(table.shape[0])
    y, x = row.float() * (side - 1) / max(rows - 1, 1), column.float() * (side - 1) / max(columns - 1, 1)
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp(max=side - 1), (left + 1).clamp(max=side - 1)
    down, across = (y - top).unsqueeze(1), (x - left).unsqueeze(1)
    upper = table[top * side + left] * (1 - across) + table[top * side + right] * across
    lower = table[bottom * side + left] * (1 - across) + table[bottom * side + right] * across
    return upper * (1 - down) + lower * down


def see(model: Qwen3VLForConditionalGeneration, pixels: Tensor) -> Seen:
    """Encode pictures of one size: (pictures, height, width, 3) floats from -1 to 1."""
    visual: Any = model.model.visual
    patch, merge = recipe.PATCH_PX, recipe.MERGE
    count, height, width, _ = pixels.shape
    rows, columns = height // patch, width // patch
    blocks = pixels.view(count, rows // merge, merge, patch, columns // merge, merge, patch, 3)
    patches = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(count, rows * columns, 3 * patch * patch)
    dtype = visual.patch_embed.proj.weight.dtype
    x = functional.linear(
        patches.to(dtype), visual.patch_embed.proj.weight.sum(2).flatten(1), visual.patch_embed.proj.bias
    )
    row, column = _block_order(rows, columns)
    x = x + _learned_places(visual.pos_embed.weight, row, column, rows, columns).to(dtype)
    frequency = visual.rotary_pos_emb.inv_freq
    angles = torch.cat((row.unsqueeze(1) * frequency, column.unsqueeze(1) * frequency), dim=1)
    angles = torch.cat((angles, angles), dim=1)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    deep = []
    for index, block in enumerate(visual.blocks):
        attention = block.attn
        qkv = attention.qkv(block.norm1(x)).view(count, x.shape[1], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key = _rotated(qkv[0], cos, sin), _rotated(qkv[1], cos, sin)
        mixed = _attend(query, key, qkv[2])
        x = x + attention.proj(mixed.transpose(1, 2).reshape(x.shape))
        x = x + block.mlp(block.norm2(x))
        if index in visual.deepstack_visual_indexes:
            merger = visual.deepstack_merger_list[list(visual.deepstack_visual_indexes).index(index)]
            deep.append(merger(x).view(count, x.shape[1] // merge**2, -1))
    return Seen(visual.merger(x).view(count, x.shape[1] // merge**2, -1), tuple(deep))


def _text_angles(model: Qwen3VLForConditionalGeneration, positions: Tensor) -> Tensor:
    """Interleaved M-RoPE angles, (rows, 1, length, head width)."""
    rotary: Any = model.model.language_model.rotary_emb
    angles = positions[..., None].float() * rotary.inv_freq
    mixed = angles[0].clone()
    for axis in (1, 2):
        chosen = slice(axis, rotary.mrope_section[axis] * 3, 3)
        mixed[..., chosen] = angles[axis, ..., chosen]
    return torch.cat((mixed, mixed), dim=-1).unsqueeze(1)


def _norm(x: Tensor, norm: Any) -> Tensor:  # noqa: ANN401 - transformers' modules are untyped
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def read(model: Qwen3VLForConditionalGeneration, reading: Reading, seen: Seen | None) -> tuple[Tensor, Tensor]:
    """Read the rows: last hidden states (rows, length, width), and where the grounded layer's heads look.

    The second is (rows, half the heads, looks, length) probabilities at `reading.looking`.
    """
    language: Any = model.model.language_model
    dtype = language.norm.weight.dtype
    x = language.embed_tokens(reading.ids).to(dtype)
    if seen is not None:
        x = torch.cat((x[:, : reading.picture.start], seen.tokens, x[:, reading.picture.stop :]), dim=1)
    angles = _text_angles(model, reading.positions)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    rows, length, _ = x.shape
    heads, groups, width = recipe.TEXT_HEADS, recipe.TEXT_KV_HEADS, recipe.HEAD_DIM
    mask = torch.zeros(reading.allowed.shape, dtype=dtype).masked_fill_(~reading.allowed, -1e4).unsqueeze(1)
    looks = torch.empty(0)
    for index, layer in enumerate(language.layers):
        attention = layer.self_attn
        calm = _norm(x, layer.input_layernorm)
        query = _norm(attention.q_proj(calm).view(rows, length, heads, width), attention.q_norm).transpose(1, 2)
        key = _norm(attention.k_proj(calm).view(rows, length, groups, width), attention.k_norm).transpose(1, 2)
        value = attention.v_proj(calm).view(rows, length, groups, width).transpose(1, 2)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        key, value = (part.repeat_interleave(heads // groups, dim=1) for part in (key, value))
        mixed = _attend(query, key, value, mask)
        x = x + attention.o_proj(mixed.transpose(1, 2).reshape(rows, length, heads * width))
        x = x + layer.mlp(_norm(x, layer.post_attention_layernorm))
        if seen is not None and index < len(seen.deep):
            stop = reading.picture.stop
            shown = x[:, reading.picture] + seen.deep[index]
            x = torch.cat((x[:, : reading.picture.start], shown, x[:, stop:]), dim=1)
        if index == recipe.GROUNDED_LAYER:
            looks = _looks(query, key, mask, reading.looking)
    return _norm(x, language.norm), looks


def _looks(query: Tensor, key: Tensor, mask: Tensor, looking: Tensor) -> Tensor:
    """Attention probabilities of the first half of the heads at the wanted positions."""
    half = query.shape[1] // 2
    index = looking[:, None, :, None]
    wanted = query[:, :half].gather(2, index.expand(-1, half, -1, query.shape[-1]))
    rows = mask.gather(2, index.expand(-1, 1, -1, mask.shape[-1]))
    scores = wanted.float() @ key[:, :half].float().transpose(2, 3) * query.shape[-1] ** -0.5
    return torch.softmax(scores + rows, dim=-1)


def logits(model: Qwen3VLForConditionalGeneration, hidden: Tensor) -> Tensor:
    """Scores of every token at the given hidden states."""
    return functional.linear(hidden, model.model.language_model.embed_tokens.weight.to(hidden.dtype))
