"""The attention function that the model's own code calls: transformers' AttentionInterface, as its paged one does.

The plan of a forward pass travels as a keyword argument through the model to every layer. Grouped query heads are laid
out as query positions of their key head, so that keys and values are read once and never repeated in memory (on one
CPU core, 64 rows of 1024 tokens: 3.3 ms instead of 44 ms per layer).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from backends._hf_rows import Bucket, Layer, Memory
from pacore_lab.errors import BackendError

NAME = "pacore_rows"


class Plan(Protocol):
    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """query [rows, query heads, tokens, dim], key and value [rows, heads, tokens, dim] -> the shape of query."""
        ...


class Prefill:
    """Prompts padded on the right: under a causal mask no real token sees the padding. Kept as `rows` of `bucket`."""

    def __init__(self, bucket: Bucket, rows: torch.Tensor) -> None:
        self.bucket, self.rows = bucket, rows

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        length = key.shape[2]
        self.bucket.keys[layer][self.rows, :, :length] = key
        self.bucket.values[layer][self.rows, :, :length] = value
        return causal(query, key, value, scale)


class Probe:
    """Keeps nothing but the shapes, layer by layer."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        assert layer == len(self.layers)
        self.layers.append(Layer(key.shape[1], key.shape[3], value.shape[3]))
        return causal(query, key, value, scale)


class Decode:
    """One token for every row in memory."""

    def __init__(self, memory: Memory, dtype: torch.dtype, device: torch.device) -> None:
        self.parts: list[tuple[Bucket, slice, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        start = 0
        for bucket in memory.buckets:
            if not bucket.rows:
                continue
            lengths = torch.tensor([row.length for row in bucket.rows], device=device)
            longest = max(row.length for row in bucket.rows) + 1
            mask = torch.zeros(len(bucket.rows), longest, dtype=dtype, device=device)
            mask.masked_fill_(torch.arange(longest, device=device) > lengths[:, None], float("-inf"))
            numbers = torch.arange(len(bucket.rows), device=device)
            rows = slice(start, start + len(bucket.rows))
            self.parts.append((bucket, rows, numbers, lengths, mask[:, None, None]))
            start = rows.stop

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        heads = key.shape[1]
        grouped = query.view(query.shape[0], heads, query.shape[1] // heads, query.shape[3])
        outputs = []
        for bucket, rows, numbers, lengths, mask in self.parts:
            keys, values = bucket.keys[layer], bucket.values[layer]
            keys[numbers, :, lengths] = key[rows, :, 0]
            values[numbers, :, lengths] = value[rows, :, 0]
            used, longest = len(bucket.rows), mask.shape[-1]
            outputs.append(
                scaled_dot_product_attention(
                    grouped[rows], keys[:used, :, :longest], values[:used, :, :longest], attn_mask=mask, scale=scale
                )
            )
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return output.reshape(*query.shape[:3], output.shape[-1])


def causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
    return scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plan: Plan,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in each layer; [rows, heads, tokens, dim] in, [rows, tokens, heads, dim] out."""
    layer = module.layer_idx
    assert isinstance(layer, int)
    return plan.attend(layer, query, key, value, scaling).transpose(1, 2).contiguous(), None


def adopt(net: Any) -> list[Layer]:
    """Make `net` attend through plans and return the shapes of its layers.

    Raises BackendError where the model's attention is not plain causal attention over the whole text: layers of another
    kind (sliding window, linear), or logits that differ from those of transformers' own attention.
    """
    from transformers import AttentionInterface, DynamicCache
    from transformers.cache_utils import DynamicLayer

    name = type(net).__name__
    AttentionInterface.register(NAME, attention)
    vocabulary = net.get_input_embeddings().weight.shape[0]
    ids = torch.arange(1, 9, device=net.device)[None] * 7919 % vocabulary
    probe = Probe()
    try:
        with torch.inference_mode():
            plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=net.config).layers)
            expected = net(input_ids=ids, use_cache=False).logits[0].float()
            net.set_attn_implementation(NAME)
            logits = net(input_ids=ids, use_cache=False, plan=probe).logits[0].float()
    except Exception as error:  # whatever a model that does not know AttentionInterface raises
        reason = " ".join(str(error).split())[:200]
        raise BackendError(f"{name} cannot be run by backends.hf ({reason}); use another backend, e.g. vllm") from error
    if not plain or not probe.layers or torch.cosine_similarity(logits, expected, dim=-1).min() < 0.99:
        raise BackendError(f"{name} attends in a way backends.hf does not know; use another backend, e.g. vllm")
    return probe.layers
