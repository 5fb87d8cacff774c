"""sums-tiny: pacore-tiny, which was trained to search, fine-tuned to read sums under references.

    python -m experiments.adaptive.sums OUT

The training is supervised, not reinforced, on made-up references. Each example is a training sum with up to 36
conclusions, most of them right; the wrong ones are slips of a digit, which may repeat. On the bare problem the response
is the whole worked sum; under references it is their most frequent answer, without working. Its synthesis is thus a
vote taken by reading: a stand-in that makes fixed PaCoRe work on sums, and evidence of nothing beyond that.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from experiments.tiny_models.batches import Batch, encode, packed
from experiments.tiny_models.mix import Dialogue
from experiments.tiny_models.model import load, ship
from experiments.tiny_models.pretrain import learning_rate, make_optimizers, response_loss, step
from experiments.tiny_models.scratch import sum_conclusion, sum_solution
from pacore_lab.problems.arithmetic import Arithmetic
from pacore_lab.types import Message, Problem
from strategies.prompts import published

HERE = Path(__file__).resolve().parent
BARE = 0.25
"""Share of examples without references."""
MOST = 36
"""The most references in an example."""


def examples(seed: int) -> Iterator[Dialogue]:
    """An endless stream; no sum repeats within 20,000."""
    rng, prompt = random.Random(f"sums {seed}"), published()
    for chunk in itertools.count():
        sums = Arithmetic(n=20_000, split="train", seed=1000 * seed + chunk)
        for question in sums.questions():
            problem = Problem(id="", messages=({"role": "user", "content": question.text},))
            if rng.random() < BARE:
                yield Dialogue(({"role": "user", "content": question.text},), sum_solution(question.a, question.b, rng))
                continue
            answers = references(question.a + question.b, rng)
            (most, _), *_ = Counter(answers).most_common(1)
            messages = [Message(text=f"\n\n{sum_conclusion(answer, rng)}", sources=()) for answer in answers]
            (turn,) = prompt(problem, messages)
            response = f"<think>\n</think>\n\n{sum_conclusion(most, rng)}"
            yield Dialogue(({"role": "user", "content": str(turn["content"])},), response)


def references(right: int, rng: random.Random) -> list[int]:
    """Answers of trajectories that slip now and then; no other answer is as frequent as the right one."""
    count = rng.randint(1, 8) if rng.random() < 0.5 else rng.randint(9, MOST)
    wrong = [slip(right, rng) for _ in range(rng.randint(1, 3))]
    reliable = rng.choice((0.5, 0.7, 0.9, 0.97))
    answers = [right if rng.random() < reliable else rng.choice(wrong) for _ in range(count)]
    while any(answers.count(other) >= max(answers.count(right), 1) for other in set(answers) - {right}):
        answers[rng.choice([place for place, each in enumerate(answers) if each != right])] = right
    return answers


def slip(right: int, rng: random.Random) -> int:
    """The number with one digit wrong, most often by one, as from a lost carry."""
    digits = list(str(right))
    place = rng.randrange(len(digits))
    by = rng.choice((1, -1)) if rng.random() < 0.7 else rng.randint(2, 8)
    digits[place] = str((int(digits[place]) + by) % 10)
    return int("".join(digits))


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, tokens: int) -> Iterator[Batch]:
    """An endless stream of (inputs, targets), as in `experiments.tiny_models.batches`."""
    stream, order = examples(seed), random.Random(seed)
    while True:
        rows = encode(tokenizer, list(itertools.islice(stream, 256)))
        yield from packed(rows, tokenizer.pad_token_id, tokens=tokens, order=order)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument("--base", type=Path, default=HERE.parent / "tiny_models" / "pacore-tiny")
    parser.add_argument("--tokens", type=int, default=10_000_000, help="tokens read in all; %(default)s")
    parser.add_argument("--lr", type=float, default=1e-3, help="%(default)s")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    model, tokenizer = load(given.base)
    model.train()
    optimizers = make_optimizers(model, given.lr)
    read, losses, began = 0, [], time.monotonic()
    for number, (inputs, targets) in enumerate(batches(tokenizer, given.seed, 4096), start=1):
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
