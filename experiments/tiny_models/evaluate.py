"""How often a tiny model is right alone, by vote, and under references: `python -m experiments.tiny_models.evaluate`.

Works on problems of the test split at the default difficulty, at temperature 1 and top_p 1. References are the model's
own conclusions to the same problem, drawn at random from its own samples, as in the second round of PaCoRe. Writes
evaluation.json beside the model and prints the same.
"""

import argparse
import json
import platform
import random
import re
import statistics
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from experiments.tiny_models.mix import Mix, dialogues, slipped, with_references
from experiments.tiny_models.model import load
from pacore_lab.problems.arithmetic import Arithmetic
from pacore_lab.types import Problem

HERE = Path(__file__).parent
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
ROWS = 160  # prompts generated together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default=str(HERE / "rlvr-tiny"))
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--samples", type=int, default=16, help="responses to each problem, alone")
    parser.add_argument("--reference-samples", type=int, default=4, help="responses to each problem under references")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    record(Path(options.model), options.problems, options.samples, options.reference_samples, options.seed)


def record(folder: Path, problems: int = 100, samples: int = 16, reference_samples: int = 4, seed: int = 0) -> None:
    """Evaluate the model in `folder`, print the figures and write them beside it."""
    model, tokenizer = load(folder)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    torch.manual_seed(seed)
    started = time.monotonic()
    result = evaluate(
        model,
        tokenizer,
        problems=Arithmetic(n=problems).load(),
        samples=samples,
        reference_samples=reference_samples,
        seed=seed,
    )
    result["seconds"] = round(time.monotonic() - started, 1)
    result["date"] = datetime.now(UTC).date().isoformat()
    result["machine"] = f"{platform.machine()}, {torch.get_num_threads()} thread(s), {model.device.type}"
    text = json.dumps(result, indent=1)
    (folder / "evaluation.json").write_text(text + "\n")
    print(text)


def evaluate(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    problems: list[Problem],
    samples: int,
    reference_samples: int,
    seed: int,
) -> dict[str, Any]:
    """The figures; an accuracy is [mean, standard error over problems]."""
    rng = random.Random(seed)
    texts = [str(problem.messages[-1]["content"]) for problem in problems]
    truths = [str(problem.answer) for problem in problems]

    responses = sample(model, tokenizer, texts, samples)
    answers = [[boxed(text) for text, _ in row] for row in responses]
    right = [[answer == truth for answer in row] for row, truth in zip(answers, truths, strict=True)]
    single = [statistics.fmean(row) for row in right]
    by_operation: dict[str, list[float]] = defaultdict(list)
    for problem, accuracy in zip(problems, single, strict=True):
        by_operation[problem.id.split("-")[0]].append(accuracy)
    greedy = [boxed(row[0][0]) for row in sample(model, tokenizer, texts, 1, greedy=True)]
    result: dict[str, Any] = {
        "problems": len(problems),
        "samples": samples,
        "single": spread(single),
        "single_by_operation": {name: spread(values) for name, values in sorted(by_operation.items())},
        "greedy": spread([float(answer == truth) for answer, truth in zip(greedy, truths, strict=True)]),
    }
    for votes in (votes for votes in (4, 16) if votes <= samples):
        voted = [vote_accuracy(row, truth, votes, rng) for row, truth in zip(answers, truths, strict=True)]
        result[f"maj@{votes}"] = spread(voted)
        result[f"any@{votes}"] = spread([any_accuracy(row, votes, rng) for row in right])
    wrong = [[answer for answer in row if answer != truth] for row, truth in zip(answers, truths, strict=True)]
    result["distinct_share_of_wrong_answers"] = spread([len(set(row)) / len(row) for row in wrong if len(row) > 1])
    result["problems_always_right"] = sum(all(row) for row in right)
    result["problems_never_right"] = sum(not any(row) for row in right)
    result["no_boxed_answer"] = statistics.fmean(answer is None for row in answers for answer in row)
    lengths = [tokens for row in responses for _, tokens in row]
    result["tokens"] = {"mean": round(statistics.fmean(lengths), 1), "max": max(lengths)}

    own = [[response.split("</think>")[-1].strip() for response, _ in row] for row in responses]
    rng = random.Random(seed)
    references = {
        "4_references": [rng.choices(row, k=4) for row in own],
        "16_references": [rng.choices(row, k=16) for row in own],
        # Does it lean on them? Sixteen that agree, on the right answer or on a wrong one.
        "16_right_references": [[f"The answer is \\boxed{{{truth}}}."] * 16 for truth in truths],
        "16_wrong_references": [[f"The answer is \\boxed{{{slipped(int(truth), rng)}}}."] * 16 for truth in truths],
    }
    for name, chosen in references.items():
        prompts = [with_references(text, listed) for text, listed in zip(texts, chosen, strict=True)]
        under = sample(model, tokenizer, prompts, reference_samples)
        accuracies = [
            statistics.fmean(boxed(text) == truth for text, _ in row) for row, truth in zip(under, truths, strict=True)
        ]
        result[f"single_under_{name}"] = spread(accuracies)
    result["reading"] = reading_accuracy(model, tokenizer, seed)
    return result


def reading_accuracy(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, n: int = 200
) -> list[float]:
    """How often a reading exercise of the training mix (fresh ones) is answered word for word."""
    exercises = list(dialogues(Mix(reading=1.0, under_references=0.0, system_turn=0.0), 987_654_321 + seed, n))
    responses = sample(model, tokenizer, [exercise.messages[-1]["content"] for exercise in exercises], 1)
    return spread([float(row[0][0] == exercise.response) for row, exercise in zip(responses, exercises, strict=True)])


@torch.inference_mode()
def sample(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str], n: int, *, greedy: bool = False
) -> list[list[tuple[str, int]]]:
    """`n` responses to each text, each with its number of generated tokens."""
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in texts
        for _ in range(n)
    ]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    done: dict[int, tuple[str, int]] = {}
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        inputs = tokenizer([prompts[row] for row in rows], return_tensors="pt", padding=True).to(model.device)
        output = model.generate(
            **inputs,
            max_new_tokens=320,
            do_sample=not greedy,
            **({} if greedy else {"temperature": 1.0, "top_p": 1.0, "top_k": 0}),
        )
        for row, ids in zip(rows, output[:, inputs.input_ids.shape[1] :], strict=True):
            kept = ids[ids != tokenizer.pad_token_id]
            done[row] = (tokenizer.decode(kept, skip_special_tokens=True), len(kept))
    return [[done[row * n + column] for column in range(n)] for row in range(len(texts))]


def boxed(response: str) -> str | None:
    """The last boxed answer of the conclusion."""
    found = BOXED.findall(response.split("</think>")[-1])
    return found[-1].strip() if found else None


def vote_accuracy(answers: list[str | None], truth: str, votes: int, rng: random.Random, draws: int = 64) -> float:
    """Share of `draws` random subsets whose most frequent answer is right; ties are broken at random."""
    hits = 0
    for _ in range(draws if votes < len(answers) else 8):
        counts = Counter(answer for answer in rng.sample(answers, votes) if answer is not None)
        top = max(counts.values(), default=0)
        hits += bool(counts) and rng.choice([a for a, count in counts.items() if count == top]) == truth
    return hits / (draws if votes < len(answers) else 8)


def any_accuracy(right: list[bool], votes: int, rng: random.Random, draws: int = 64) -> float:
    """Share of `draws` random subsets that hold a right answer (pass@votes)."""
    return statistics.fmean(any(rng.sample(right, votes)) for _ in range(draws))


def spread(values: list[float]) -> list[float]:
    """[mean, standard error of the mean] over problems."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return [round(statistics.fmean(values), 4), round(error, 4)] if values else []


if __name__ == "__main__":
    main()
