"""A prompt and all its responses as one sequence, so that the prompt is computed and backpropagated only once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacore_lab.training.ppo.shared_prompt import Shared

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A prompt and some of its responses, as token ids. places: which responses of the batch these are."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]
    places: Sequence[int]

    @property
    def longest(self) -> int:
        """Columns per response: one less than its tokens, since the last token predicts nothing, but at least one."""
        return max(1, *(len(response) - 1 for response in self.responses))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A micro-batch. ids, positions [rows, columns]. before, targets [tokens], in the order of the pieces.

    before: for each response token, the flattened column of the state that predicts it. lengths [responses]: tokens of
    each. places [responses]: see `Piece`.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    plan: Shared
    before: torch.Tensor
    targets: torch.Tensor
    lengths: torch.Tensor
    places: torch.Tensor


def split(pieces: Sequence[Piece], most: int) -> list[list[Piece]]:
    """Micro-batches of pieces of similar length, at most `most` columns each; larger pieces are cut up."""
    cut: list[Piece] = []
    for piece in pieces:
        size = max(1, (most - len(piece.prompt)) // piece.longest)
        for start in range(0, len(piece.responses), size):
            here = slice(start, start + size)
            cut.append(Piece(prompt=piece.prompt, responses=piece.responses[here], places=piece.places[here]))
    batches: list[list[Piece]] = []
    for piece in sorted(cut, key=lambda piece: len(piece.prompt)):
        if not batches or _columns([*batches[-1], piece]) > most:
            batches.append([])
        batches[-1].append(piece)
    return batches


def pack(pieces: Sequence[Piece], device: torch.device) -> Packed:
    """One micro-batch from pieces."""
    import torch

    prompt, response, count = _shape(pieces)
    ids = torch.zeros(len(pieces), prompt + count * response, dtype=torch.long)
    positions = torch.arange(prompt).repeat(len(pieces), 1)
    inside = torch.arange(response).repeat(count)
    positions = torch.cat([positions, torch.tensor([[len(p.prompt)] for p in pieces]) + inside], 1)
    before: list[torch.Tensor] = []
    targets: list[int] = []
    for row, piece in enumerate(pieces):
        ids[row, : len(piece.prompt)] = torch.tensor(piece.prompt)
        for number, tokens in enumerate(piece.responses):
            start = prompt + number * response
            ids[row, start : start + len(tokens) - 1] = torch.tensor(tokens[:-1], dtype=torch.long)
            columns = torch.cat([torch.tensor([len(piece.prompt) - 1]), torch.arange(start, start + len(tokens) - 1)])
            before.append(row * ids.shape[1] + columns)
            targets += tokens
    lengths = torch.tensor([len(piece.prompt) for piece in pieces], device=device)
    return Packed(
        ids=ids.to(device),
        positions=positions.to(device),
        plan=Shared(lengths, prompt, response),
        before=torch.cat(before).to(device),
        targets=torch.tensor(targets, device=device),
        lengths=torch.tensor([len(tokens) for piece in pieces for tokens in piece.responses], device=device),
        places=torch.tensor([place for piece in pieces for place in piece.places], device=device),
    )


def log_probs(policy: Any, packed: Packed, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each response token, and the entropy of the distribution it comes from: float32 [tokens]."""
    import torch

    logits = policy.get_output_embeddings()(_states(policy.base_model, packed)).float() / temperature
    logs = logits.log_softmax(-1)
    with torch.no_grad():
        entropy = -(logs.exp() * logs).sum(-1)
    return logs.gather(1, packed.targets[:, None])[:, 0], entropy


def values(critic: Any, packed: Packed) -> torch.Tensor:
    """The critic's value of the state before each response token: float32 [tokens]."""
    found: torch.Tensor = critic["head"](_states(critic["body"], packed)).float()[:, 0]
    return found


def new_critic(policy: Any) -> Any:
    """{"body", "head"}: a copy of the policy's current body, and a linear head of zeros (all values start at 0)."""
    import copy

    import torch

    body = copy.deepcopy(policy.base_model)
    head = torch.nn.Linear(policy.get_output_embeddings().in_features, 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return torch.nn.ModuleDict({"body": body, "head": head.to(policy.device)})


def _states(body: Any, packed: Packed) -> torch.Tensor:
    found = body(input_ids=packed.ids, position_ids=packed.positions, use_cache=False, plan=packed.plan)
    states: torch.Tensor = found.last_hidden_state.flatten(0, 1)[packed.before]
    return states


def _shape(pieces: Sequence[Piece]) -> tuple[int, int, int]:
    """Columns per prompt, columns per response, responses per row."""
    return (
        max(len(piece.prompt) for piece in pieces),
        max(piece.longest for piece in pieces),
        max(len(piece.responses) for piece in pieces),
    )


def _columns(pieces: Sequence[Piece]) -> int:
    prompt, response, count = _shape(pieces)
    return len(pieces) * (prompt + count * response)
