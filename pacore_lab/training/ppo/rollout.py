"""Rollouts in this process: each prompt is read once, and all its responses are decoded together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pacore_lab.training.ppo.shared_prompt import Decode, Prefill, adopted

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A sampled response. tokens: without the prompt, including the token that ended it.

    logprobs: natural log-probability of each token under the distribution it was drawn from (after temperature).
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    max_tokens: int,
    eos: Collection[int],
    generator: torch.Generator,
    temperature: float = 1.0,
    rows: int = 1024,
) -> list[list[Rollout]]:
    """n responses to each prompt, by plain sampling (top_p 1) with random numbers from `generator`, on the CPU.

    model: a transformers causal language model. prompts: token ids, 2 or more each. max_tokens: per response.
    rows: the most responses decoded together; up to rounding, it does not change the draws.
    Raises ConfigError for a model whose attention is not plain (see `shared_prompt.adopted`).
    """
    import torch

    noise = torch.rand(len(prompts), n, max_tokens, dtype=torch.float64, generator=generator)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: list[list[Rollout]] = [[] for _ in prompts]
    step = max(1, rows // n)
    with torch.inference_mode(), adopted(model):
        for start in range(0, len(order), step):
            chosen = order[start : start + step]
            batch = _Batch(model, [prompts[i] for i in chosen], noise[chosen], frozenset(eos), temperature)
            for i, made in zip(chosen, batch.run(), strict=True):
                found[i] = made
    return found


class _Batch:
    """noise [prompts, n, max_tokens]: each number picks its token from the cumulative probabilities."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        noise: torch.Tensor,
        eos: frozenset[int],
        temperature: float,
    ) -> None:
        import torch

        self.model, self.temperature = model, temperature
        self.count, self.n, self.room = noise.shape
        device = model.device
        self.noise = noise.flatten(0, 1).to(device)
        self.eos = torch.tensor(sorted(eos), device=device)
        # A prompt's last token is not prefilled: it is fed to the first step, which makes that step like the others.
        self.lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        ids = torch.zeros(self.count, int(self.lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt) - 1] = torch.tensor(prompt[:-1])
        prefill = Prefill()
        positions = torch.arange(ids.shape[1], device=device)[None]
        model.base_model(input_ids=ids.to(device), position_ids=positions, use_cache=False, plan=prefill)
        self.plan = Decode(prefill, self.lengths, self.n, self.room)
        self.last = torch.tensor([prompt[-1] for prompt in prompts], device=device).repeat_interleave(self.n)
        total = self.count * self.n
        self.tokens = torch.zeros(total, self.room, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(total, self.room, device=device)
        self.made = torch.full((total,), self.room, device=device)
        self.stopped = torch.zeros(total, dtype=torch.bool, device=device)
        self.rows = torch.arange(total, device=device)  # the response of each decoded row

    def run(self) -> list[list[Rollout]]:
        for time in range(self.room):
            self._step(time)
            self._drop_finished()
            if not len(self.rows):
                break
        lines = zip(
            self.tokens.tolist(), self.logprobs.tolist(), self.made.tolist(), self.stopped.tolist(), strict=True
        )
        made = [
            Rollout(tokens=tuple(tokens[:k]), logprobs=tuple(logs[:k]), finish_reason="stop" if stop else "length")
            for tokens, logs, k, stop in lines
        ]
        return [made[start : start + self.n] for start in range(0, len(made), self.n)]

    def _step(self, time: int) -> None:
        import torch

        rows = self.rows
        self.plan.time = time
        positions = self.lengths[rows // self.n, None] + time
        logits = self.model(
            input_ids=self.last[:, None], position_ids=positions, use_cache=False, plan=self.plan
        ).logits[:, -1]
        logs = (logits.float() / self.temperature).log_softmax(-1)
        heaped = logs.double().exp().cumsum(-1)
        point = self.noise[rows, time, None] * heaped[:, -1:]
        token = torch.searchsorted(heaped, point, right=True).clamp(max=heaped.shape[-1] - 1)
        self.last = token[:, 0]
        fresh = ~self.stopped[rows]
        here = rows[fresh]
        self.tokens[here, time] = self.last[fresh]
        self.logprobs[here, time] = logs.gather(1, token)[fresh, 0]
        ended = here[torch.isin(self.last[fresh], self.eos)]
        self.stopped[ended] = True
        self.made[ended] = time + 1

    def _drop_finished(self) -> None:
        """Shrink to a rectangle of prompts by rows if that saves a quarter: copying the rest has a cost too."""
        going = ~self.stopped[self.rows]
        prompts = self.plan.mask.shape[0]
        table = going.view(prompts, -1)
        alive = table.any(1).nonzero()[:, 0]
        width = int(table.sum(1).max())
        if len(alive) * width > 0.75 * len(self.rows):
            return
        first = (~table[alive]).long().argsort(dim=1, stable=True)[:, :width]
        kept = (alive[:, None] * table.shape[1] + first).flatten()
        self.plan.keep(alive, kept)
        self.rows, self.last = self.rows[kept], self.last[kept]
