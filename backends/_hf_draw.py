"""Drawing the next token of every row at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backends._confidence import confidence
from backends._hf_rows import Row


def draw(logits: torch.Tensor, rows: Sequence[Row]) -> tuple[list[int], list[float] | None]:
    """Tokens, and their log-probabilities if any row asks, from logits [rows, vocabulary].

    A token is the inverse of the cumulative distribution at the row's own random number, in double precision: one
    number per token, whatever else is in the batch. Log-probabilities are the model's own, before temperature and
    top-p.
    """
    logits = logits.float()
    chosen = logits.argmax(-1)
    if any(row.temperature > 0 for row in rows):
        drawn = _column([row.temperature > 0 for row in rows], logits)[:, 0]
        chosen = torch.where(drawn, _sample(logits, rows), chosen)
    tokens: list[int] = chosen.tolist()
    if max(tokens) >= logits.shape[1]:  # what searching a cumulative sum of nan ends in
        raise FloatingPointError("the model's logits are nan; a wider model.dtype may help")
    if not any(row.logprobs for row in rows):
        return tokens, None
    logprobs = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
    return tokens, logprobs.tolist()


def confidences(logits: torch.Tensor, rows: Sequence[Row]) -> dict[int, float]:
    """The confidence in its place of each row (by its index) that asks for one, under the model's own distribution."""
    asking = [i for i, row in enumerate(rows) if row.top_logprobs]
    if not asking:
        return {}
    some = logits[torch.tensor(asking, device=logits.device)].float()
    tops = torch.tensor([rows[i].top_logprobs for i in asking], device=logits.device)[:, None]
    likeliest = some.topk(int(tops.max())).values - some.logsumexp(-1, keepdim=True)
    means = (likeliest.cumsum(-1, dtype=torch.float64).gather(1, tops - 1) / tops)[:, 0].tolist()
    return {i: confidence([mean]) for i, mean in zip(asking, means, strict=True)}


def _column(numbers: list[float] | list[bool], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(numbers, device=like.device)[:, None]


def _sample(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    # Greedy rows take part at temperature 1 and number 0; their draw is thrown away.
    temperature = _column([row.temperature or 1.0 for row in rows], logits)
    # The largest is brought to 0 first, so that no temperature, however small, makes an infinity of it.
    probability = torch.softmax((logits - logits.amax(-1, keepdim=True)) / temperature, -1)
    numbers = [row.uniform() if row.temperature else 0.0 for row in rows]
    uniform = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None]
    chosen = _invert(probability, uniform)
    nucleus = [i for i, row in enumerate(rows) if row.top_p < 1]
    if nucleus:  # only these pay for the sort
        some = torch.tensor(nucleus, device=logits.device)
        sorted_, tokens = probability[some].sort(stable=True, dim=-1, descending=True)
        before = sorted_.cumsum(-1, dtype=torch.float64) - sorted_
        sorted_ = sorted_.masked_fill(before >= _column([rows[i].top_p for i in nucleus], before), 0.0)
        chosen[some] = tokens.gather(1, _invert(sorted_, uniform[some])[:, None])[:, 0]
    return chosen


def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Index of the first entry whose cumulative weight exceeds uniform * total. Never one of weight zero."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
