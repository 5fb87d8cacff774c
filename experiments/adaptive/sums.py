"""A model that reads sums under references: fine-tuned pacore-tiny, which was trained to search and cannot.

    python -m experiments.adaptive.sums POOL_RUN OUT

POOL_RUN: a run of strategy=majority_vote on training sums. Each example is a problem with 0 to 32 conclusions of its
pool; the response is a right trajectory of the pool, whole on the bare problem, its conclusion alone under references.
Supervised, not reinforced: it learns which answer a set of references speaks for.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from experiments.tiny_models.batches import IGNORED, Batch
from experiments.tiny_models.model import load, ship
from experiments.tiny_models.pretrain import learning_rate, make_optimizers, response_loss, step
from pacore_lab.results import read_lines
from pacore_lab.types import Message, Problem, conclusion
from strategies.prompts import published

HERE = Path(__file__).resolve().parent
BARE = 0.4
"""Share of examples without references."""
MOST = 32
"""References, at most."""


def examples(lines: list[dict[str, Any]], seed: int) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """(conversation, response), without end."""
    draw, prompt = random.Random(seed), published()
    while True:
        line = draw.choice(lines)
        pool = line["round_responses"][0]
        right = [pool[place]["content"] for place, sample in enumerate(line["samples"]) if sample["score"] == 1]
        if not right:
            continue
        shown = 0 if draw.random() < BARE else draw.randint(1, MOST)
        texts = draw.sample([conclusion(each["content"]) for each in pool if each["content"]], shown)
        messages = [Message(text=text, sources=()) for text in texts]
        problem = Problem(id=line["request_id"], messages=tuple(line["problem"]))
        chosen = draw.choice(right)
        response = chosen if not shown else f"<think>\n</think>{conclusion(chosen)}"
        yield [dict(turn) for turn in prompt(problem, messages)], response


def batches(tokenizer: PreTrainedTokenizerFast, lines: list[dict[str, Any]], seed: int, tokens: int) -> Iterator[Batch]:
    """(inputs, targets), both [rows, length] int64, about `tokens` entries each; rows of one batch are of like length."""
    stream = examples(lines, seed)
    while True:
        rows = []
        for conversation, response in (next(stream) for _ in range(256)):
            text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
            left, right = tokenizer(text).input_ids, tokenizer(response + tokenizer.eos_token).input_ids
            rows.append((left + right, len(left)))
        rows.sort(key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], int]]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > tokens:
                groups.append([])
            groups[-1].append(row)
        random.Random(seed).shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group) - 1
            inputs = torch.full((len(group), width), tokenizer.pad_token_id)
            targets = torch.full((len(group), width), IGNORED)
            for place, (ids, prompt) in enumerate(group):
                inputs[place, : len(ids) - 1] = torch.tensor(ids[:-1])
                targets[place, prompt - 1 : len(ids) - 1] = torch.tensor(ids[prompt:])
            yield inputs, targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="folder of the run")
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument("--base", type=Path, default=HERE.parent / "tiny_models" / "pacore-tiny")
    parser.add_argument("--tokens", type=int, default=2_500_000, help="read in all; %(default)s")
    parser.add_argument("--lr", type=float, default=1e-3, help="%(default)s")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    model, tokenizer = load(given.base)
    model.train()
    optimizers = make_optimizers(model, given.lr)
    lines = list(read_lines(given.pool / "results.jsonl"))
    read, losses, began = 0, [], time.monotonic()
    for number, (inputs, targets) in enumerate(batches(tokenizer, lines, given.seed, 4096), start=1):
        loss = response_loss(model, inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        read += int((inputs != tokenizer.pad_token_id).sum())
        step(optimizers, model, given.lr * learning_rate(read / given.tokens))
        if number % 50 == 0:
            print(f"{read / 1e6:.2f}M tokens {time.monotonic() - began:.0f} s loss {sum(losses) / 50:.4f}", flush=True)
            losses.clear()
        if read >= given.tokens:
            break
    ship(model, tokenizer, given.out)


if __name__ == "__main__":
    main()
