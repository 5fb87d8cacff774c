"""Attention that reads a prompt once for all its responses, through transformers' AttentionInterface.

The plan of a forward pass is a keyword argument that the model passes to every layer. Keys, values and queries are
[rows, heads, tokens, dim]. Queries of heads that share a key head are laid out as extra positions of that head, so keys
are not repeated in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from pacore_lab.errors import ConfigError

if TYPE_CHECKING:
    import torch

NAME = "pacore_shared_prompt"


class Plan(Protocol):
    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """[rows, heads, tokens, dim], as `query` but with the dim of `value`."""
        ...


class Prefill:
    """Prompts padded on the right: under a causal mask no real token sees the padding. Keeps keys and values."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        self.keys.append(key)
        self.values.append(value)
        return _causal(query, key, value, scale)


class Decode:
    """Decodes one token for every row; each `width` consecutive rows share a prompt.

    prompts: the `Prefill` with their keys and values. lengths [prompts]: real tokens of each. room: the most tokens a
    row can get.
    """

    def __init__(self, prompts: Prefill, lengths: torch.Tensor, width: int, room: int) -> None:
        self.time = 0
        self.keys, self.values = ([part.contiguous() for part in kept] for kept in (prompts.keys, prompts.values))
        rows = len(lengths) * width
        self.own = [
            tuple(part.new_empty(rows, part.shape[1], room, part.shape[3]) for part in pair)
            for pair in zip(self.keys, self.values, strict=True)
        ]
        self.mask = _padding(lengths, self.keys[0].shape[2])[:, None, None]

    def keep(self, prompts: torch.Tensor, rows: torch.Tensor) -> None:
        """Continue with only these prompts and rows; every prompt keeps equally many rows."""
        self.keys, self.values = [k[prompts] for k in self.keys], [v[prompts] for v in self.values]
        self.own = [(keys[rows], values[rows]) for keys, values in self.own]
        self.mask = self.mask[prompts]

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        import torch

        keys, values = self.keys[layer], self.values[layer]
        own_keys, own_values = (part[:, :, : self.time + 1] for part in self.own[layer])
        own_keys[:, :, self.time], own_values[:, :, self.time] = key[:, :, 0], value[:, :, 0]
        prompts, heads, length, _ = keys.shape
        width, shared, dim = query.shape[0] // prompts, query.shape[1] // heads, query.shape[3]
        by_row = query.view(prompts * width, heads, shared, dim) * scale
        by_prompt = by_row.view(prompts, width, heads, shared, dim).transpose(1, 2).flatten(2, 3)
        scores = by_prompt @ keys.transpose(-1, -2) + self.mask
        scores = scores.view(prompts, heads, width, shared, length).transpose(1, 2).flatten(0, 1)
        weights = torch.cat([scores, by_row @ own_keys.transpose(-1, -2)], -1).softmax(-1)
        on_prompt = weights[..., :length].reshape(prompts, width, heads, shared, length).transpose(1, 2).flatten(2, 3)
        seen = (on_prompt @ values).view(prompts, heads, width, shared, -1).transpose(1, 2).flatten(0, 1)
        found: torch.Tensor = seen + weights[..., length:] @ own_values
        return found.reshape(*query.shape[:3], -1)


class Shared:
    """Whole sequences [prompt, padded on the right | response | response ...], with gradients.

    lengths [rows]: real tokens of each prompt. prompt, response: columns of each; all rows have equally many responses.
    A response sees its prompt and itself. Computes in float32, which for short rows is faster even on a CPU.
    """

    def __init__(self, lengths: torch.Tensor, prompt: int, response: int) -> None:
        import torch

        self.prompt, self.response = prompt, response
        later = torch.ones(response, response, dtype=torch.bool, device=lengths.device).triu(1)
        own = torch.zeros(response, response, device=lengths.device).masked_fill(later, float("-inf"))
        padding = _padding(lengths, prompt)[:, None].expand(-1, response, -1)
        self.mask = torch.cat([padding, own.expand(len(lengths), -1, -1)], -1)
        self._wide: dict[tuple[int, int], torch.Tensor] = {}  # made once, since all layers are alike

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        import torch
        from torch.nn.functional import scaled_dot_product_attention as attention

        with torch.autocast(query.device.type, enabled=False):
            query, key, value = query.float(), key.float(), value.float()
            first = _causal(query[:, :, : self.prompt], key[:, :, : self.prompt], value[:, :, : self.prompt], scale)
            rows, heads, columns, _ = key.shape
            count, shared = (columns - self.prompt) // self.response, query.shape[1] // heads
            asked = query[:, :, self.prompt :].reshape(rows, heads, shared, count, self.response, -1)
            asked = asked.permute(0, 3, 1, 2, 4, 5).reshape(rows * count, heads, shared * self.response, -1)
            mask = self._mask(count, shared)
            seen = attention(asked, self._spread(key, count), self._spread(value, count), attn_mask=mask, scale=scale)
            seen = seen.view(rows, count, heads, shared, self.response, -1).permute(0, 2, 3, 1, 4, 5)
            return torch.cat([first, seen.reshape(rows, heads * shared, count * self.response, -1)], 2)

    def _mask(self, count: int, shared: int) -> torch.Tensor:
        if (count, shared) not in self._wide:
            self._wide[count, shared] = self.mask.repeat(1, shared, 1).repeat_interleave(count, 0)[:, None]
        return self._wide[count, shared]

    def _spread(self, part: torch.Tensor, count: int) -> torch.Tensor:
        """[rows, heads, columns, dim] -> [rows * count, heads, prompt + response, dim]."""
        import torch

        prompts = part[:, None, :, : self.prompt].expand(-1, count, -1, -1, -1)
        own = part[:, :, self.prompt :].reshape(*part.shape[:2], count, self.response, -1).transpose(1, 2)
        return torch.cat([prompts, own], 3).flatten(0, 1)


@contextmanager
def adopted(model: Any) -> Iterator[None]:
    """In the block, the causal language model attends through plans and cannot be called without one.

    Raises ConfigError if its attention is not plainly causal over the whole text, or if its logits are not just its
    output embedding: it would then be trained on something else.
    """
    before = model.config._attn_implementation
    if before == NAME:
        yield
        return
    try:
        _adopt(model)
        yield
    finally:
        model.set_attn_implementation(before)


def _adopt(model: Any) -> None:
    import torch
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    name = type(model).__name__
    ids = torch.arange(1, 33, device=model.device)[None] * 7919 % model.get_input_embeddings().weight.shape[0]
    plan = Shared(torch.tensor([20], device=model.device), 20, 12)
    try:
        with torch.inference_mode():
            expected = model(input_ids=ids, use_cache=False).logits.float()
            model.set_attn_implementation(NAME)
            states = model.base_model(input_ids=ids, use_cache=False, plan=plan).last_hidden_state
            found = model.get_output_embeddings()(states).float()
    except Exception as error:  # a model without AttentionInterface can raise anything
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{name} cannot be trained here ({reason}); take a plain decoder, e.g. Qwen3") from error
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2 * float(expected.std())):
        raise ConfigError(f"{name} attends in a way this trainer does not know; take a plain decoder, e.g. Qwen3")


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plan: Plan,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers in each layer; [rows, heads, tokens, dim] in, [rows, tokens, heads, dim] out."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return plan.attend(module.layer_idx, query, key, value, scale).transpose(1, 2).contiguous(), None


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    from torch.nn.functional import scaled_dot_product_attention as attention

    return attention(query, key, value, is_causal=True, scale=scale, enable_gqa=query.shape[1] != key.shape[1])


def _padding(lengths: torch.Tensor, columns: int) -> torch.Tensor:
    """[rows, columns], to add to scores: 0 at each token, -inf after the last."""
    import torch

    beyond = torch.arange(columns, device=lengths.device) >= lengths[:, None]
    return torch.zeros(beyond.shape, device=lengths.device).masked_fill(beyond, float("-inf"))
