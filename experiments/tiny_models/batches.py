"""From dialogues to tensors: sorted by length so that padding is small, with loss only on the response."""

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedTokenizerFast

from experiments.tiny_models.mix import Dialogue, Mix, dialogues

IGNORED = -100
Batch = tuple[torch.Tensor, torch.Tensor]


def batches(
    tokenizer: PreTrainedTokenizerFast, mix: Mix, seed: int, *, dialogues_each: int, tokens: int
) -> Iterator[Batch]:
    """(inputs, targets), both (rows, length) int64, about `tokens` entries each; `dialogues_each` dialogues in all.

    Rows are padded on the right: with causal attention no real token sees the padding, so no mask is needed.
    """
    rows = encode(tokenizer, list(dialogues(mix, seed, dialogues_each)))
    yield from packed(rows, tokenizer.pad_token_id, tokens=tokens, order=random.Random(f"order {seed}"))


def packed(rows: list[tuple[list[int], int]], pad: int, *, tokens: int, order: random.Random) -> Iterator[Batch]:
    """Batches of rows of similar length, in random order. rows: token ids, each with the length of its prompt."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    groups: list[list[tuple[list[int], int]]] = [[]]
    for row in rows:
        if (len(groups[-1]) + 1) * len(row[0]) > tokens and groups[-1]:
            groups.append([])
        groups[-1].append(row)
    order.shuffle(groups)
    for group in groups:
        width = max(len(ids) for ids, _ in group) - 1
        inputs = torch.full((len(group), width), pad)
        targets = torch.full((len(group), width), IGNORED)
        for index, (ids, prompt) in enumerate(group):
            inputs[index, : len(ids) - 1] = torch.tensor(ids[:-1])
            targets[index, prompt - 1 : len(ids) - 1] = torch.tensor(ids[prompt:])
        yield inputs, targets


def encode(tokenizer: PreTrainedTokenizerFast, chosen: list[Dialogue]) -> list[tuple[list[int], int]]:
    """For each dialogue, its tokens up to and including the end of the response, and the length of its prompt."""
    prompts = [
        tokenizer.apply_chat_template(list(dialogue.messages), tokenize=False, add_generation_prompt=True)
        for dialogue in chosen
    ]
    # Prompt and response are encoded separately, as at sampling time: they never merge.
    prompt_ids = tokenizer(prompts).input_ids
    response_ids = tokenizer([dialogue.response + tokenizer.eos_token for dialogue in chosen]).input_ids
    return [(left + right, len(left)) for left, right in zip(prompt_ids, response_ids, strict=True)]
