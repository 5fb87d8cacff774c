"""Compares runs of one strategy on several engines; the first folder is the reference. See README.md."""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from pacore_lab.analysis import accuracy_interval, difference_interval

TINY = Path(__file__).parents[1] / "tiny_models" / "rlvr-tiny"
Key = tuple[str, int]
"""(problem, repeat)."""


@dataclass(frozen=True, kw_only=True)
class EngineRun:
    """An engine's results, by (problem, repeat)."""

    name: str
    lines: Mapping[Key, Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> EngineRun:
        with (folder / "results.jsonl").open(encoding="utf-8") as file:
            lines = {(line["request_id"], line["repeat"]): line for line in map(json.loads, file)}
        if missing := [key for key, line in lines.items() if line["error"] or line["grade"]["score"] is None]:
            raise SystemExit(f"error: {folder} has {len(missing)} ungraded or failed episodes, e.g. {missing[0]}")
        engine = json.loads((folder / "versions.json").read_text())["backend"]["evidence"]["engine"]
        return cls(
            name=f"{engine}, {json.loads((folder / 'settings.json').read_text())['model']['dtype']}", lines=lines
        )

    def score(self, key: Key) -> float:
        return float(self.lines[key]["grade"]["score"])


class Scorer:
    """Log-probabilities from transformers in float32, the reference for all engines."""

    def __init__(self, folder: Path) -> None:
        logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def mean_logprob(self, line: Mapping[str, Any]) -> float | None:
        """Mean over the final response's tokens; None if its text does not give back the sampled tokens."""
        facts = line["trajectories"][-1][0]
        text = self.tokenizer.apply_chat_template(line["problem"], add_generation_prompt=True, tokenize=False)
        prompt = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = self.tokenizer(line["final_response"], add_special_tokens=False)["input_ids"]
        answer += [self.tokenizer.eos_token_id] if facts["finish_reason"] == "stop" else []
        if len(answer) != facts["tokens"]:
            return None
        logits = self.net(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        return float(torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None]).mean())


def row(engine: EngineRun, reference: EngineRun, scorer: Scorer) -> list[str]:
    if engine.lines.keys() != reference.lines.keys():
        raise SystemExit(f"error: {engine.name} and {reference.name} ran on different problems or repeats")
    scores, differences = defaultdict(list), defaultdict(list)
    for key in engine.lines:
        scores[key[0]].append(engine.score(key))
        differences[key[0]].append(engine.score(key) - reference.score(key))
    repeats = len(engine.lines) / len(scores)
    means = [statistics.fmean(values) for values in scores.values()]
    leads = [statistics.fmean(values) for values in differences.values()]
    same = [engine.lines[key]["final_response"] == line["final_response"] for key, line in reference.lines.items()]
    off = [
        abs(line["trajectories"][-1][0]["mean_logprob"] - expected)
        for line in engine.lines.values()
        if (expected := scorer.mean_logprob(line)) is not None
    ]
    lead = "–" if engine is reference else points(leads, difference_interval(leads, repeats))
    return [
        engine.name,
        points(means, accuracy_interval(means, repeats)),
        lead,
        f"{100 * statistics.fmean(same):.0f} %",
        f"{statistics.fmean(line['tokens']['generated'] for line in engine.lines.values()):.1f}",
        f"{statistics.fmean(off):.1e}",
        f"{max(off):.1e}",
        str(len(off)),
    ]


def points(values: Sequence[float], interval: tuple[float, float]) -> str:
    return f"{100 * statistics.fmean(values):.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="run folders (out=...), the reference first")
    parser.add_argument("--model", type=Path, default=TINY, help="folder of the weights")
    args = parser.parse_args()
    runs, scorer = [EngineRun.read(folder) for folder in args.folders], Scorer(args.model)
    heads = [
        "engine",
        "accuracy % [95 %]",
        "minus the first",
        "same text",
        "tokens",
        "mean",
        "largest",
        "texts compared",
    ]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    for engine in runs:
        print("| " + " | ".join(row(engine, runs[0], scorer)) + " |", flush=True)


if __name__ == "__main__":
    main()
