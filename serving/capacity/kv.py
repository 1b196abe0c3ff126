"""Bytes -> blocks -> tokens of KV cache, exactly as vLLM accounts for them.

tests/engine/test_kv_accounting.py holds it against vLLM's own functions and against the line that an engine logs.
It holds for models whose layers all have full attention, as Qwen3-VL's have: one group of layers, one page size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.capacity.model import Text

GPU_BLOCK_TOKENS = 16
"""config/cache.py: CacheConfig.DEFAULT_BLOCK_SIZE; FlashAttention, FlashInfer and Triton keep it
(platforms/interface.py: update_block_size_for_backend)."""
CPU_BLOCK_TOKENS = 128
"""platforms/cpu.py: CpuPlatform.check_and_update_config."""


@dataclass(frozen=True)
class Layout:
    """How one GPU stores keys and values."""

    layers: int
    kv_heads: int
    """On each GPU."""
    head_dim: int
    element_bytes: int
    block_tokens: int = GPU_BLOCK_TOKENS

    @property
    def token_bytes(self) -> int:
        """Key and value of one token in all layers."""
        return self.layers * self.kv_heads * 2 * self.head_dim * self.element_bytes

    @property
    def block_bytes(self) -> int:
        """One block in all layers.

        v1/kv_cache_interface.py: AttentionSpec.page_size_bytes, times the layers
        (v1/core/kv_cache_utils.py: _get_kv_cache_bytes_per_block).
        """
        return self.token_bytes * self.block_tokens


def layout(
    text: Text, element_bytes: int = 2, gpus_per_engine: int = 1, block_tokens: int = GPU_BLOCK_TOKENS
) -> Layout:
    """Lay out the cache of a decoder on each GPU of an engine.

    With more GPUs than KV heads each head is kept more than once (model_executor/models/qwen3.py: Qwen3Attention).
    """
    kv_heads = max(1, text.kv_heads // gpus_per_engine)
    return Layout(text.layers, kv_heads, text.head_dim, element_bytes, block_tokens)


@dataclass(frozen=True)
class Capacity:
    """What a number of bytes holds."""

    blocks: int
    block_tokens: int
    context_tokens: int
    """Of the engine: --max-model-len."""

    @property
    def usable_blocks(self) -> int:
        """All but the null block, which the pool holds back (v1/core/kv_cache_utils.py: get_kv_cache_configs)."""
        return max(0, self.blocks - 1)

    @property
    def usable_tokens(self) -> int:
        """Tokens that requests can hold at once."""
        return self.usable_blocks * self.block_tokens

    @property
    def full_requests(self) -> float:
        """Requests at the full context length: "Maximum concurrency for … tokens per request" in vLLM's log.

        v1/core/kv_cache_utils.py: get_max_concurrency_for_kv_cache_config; the null block is counted there.
        """
        return self.blocks / blocks_for(self.context_tokens, self.block_tokens)

    @property
    def logged_tokens(self) -> int:
        """Tokens in vLLM's log line "GPU KV cache size: … tokens".

        v1/core/kv_cache_utils.py: get_kv_cache_capacity. Not blocks times block size: a context that is no multiple of
        the block makes it less.
        """
        return int(self.full_requests * self.context_tokens)

    @property
    def holds_one_full_request(self) -> bool:
        """Whether vLLM starts (v1/core/kv_cache_utils.py: _check_enough_kv_cache_memory)."""
        return self.usable_blocks >= blocks_for(self.context_tokens, self.block_tokens)

    def requests(self, tokens: int) -> int:
        """Count the requests of this many tokens that it holds at once."""
        return self.usable_blocks // blocks_for(tokens, self.block_tokens)


def blocks_for(tokens: int, block_tokens: int) -> int:
    """Count the blocks that a request of this many tokens takes."""
    return -(-tokens // block_tokens)


def capacity(available_bytes: int, form: Layout, context_tokens: int) -> Capacity:
    """Divide bytes into blocks; what is left over is lost (v1/core/kv_cache_utils.py: get_kv_cache_config_from_groups).

    Negative bytes hold nothing.
    """
    return Capacity(max(0, available_bytes) // form.block_bytes, form.block_tokens, context_tokens)
