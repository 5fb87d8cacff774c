"""A process reward model that rates every step (arXiv 2305.20050; for Best-of-N: 2408.03314, section 5.1)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, TypeAlias

from pacore_lab.errors import ConfigError
from pacore_lab.interfaces import Sampler
from pacore_lab.types import Problem, Trajectory, text_of
from strategies.scorers.score import Score

Aggregate: TypeAlias = Literal["last", "min", "product"]
COMBINED: dict[Aggregate, Callable[[list[float]], float]] = {
    "last": lambda ratings: ratings[-1],
    "min": min,
    "product": math.prod,
}


@dataclass(frozen=True, kw_only=True)
class ProcessReward:
    """The probability that the conclusion's steps are right, by a token classifier as trained by TRL's PRMTrainer.

    path, revision: folder or hub id of the classifier and its tokenizer; it has two labels, the second of them "right".
    separator: the text between steps, the same as in training. A step's rating is the second label's probability at the
    last token of the separator after it; the input is the problem's turns and the steps, each piece tokenized
    separately, as in training. aggregate: the score is the last step's rating, the lowest rating or the product of all.
    device: "cpu", "cuda", ...; the weights are loaded for the first score, and scores are computed one at a time.
    A score generates nothing, so it is not part of the test-time compute.
    Raises ValueError if the path does not hold such a classifier, ConfigError if its weights cannot be loaded.
    """

    path: str
    revision: str | None = None
    separator: str = "\n"
    aggregate: Aggregate = "last"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.aggregate not in tuple(COMBINED):
            raise ValueError(f"strategy.scorer.aggregate is {self.aggregate!r}; give last, min or product")
        if not isinstance(self.separator, str) or not self.separator:
            raise ValueError(
                rf'strategy.scorer.separator is {self.separator!r}; give the text between steps, e.g. "\n"'
            )
        if not isinstance(self.path, str):
            raise ValueError(f"strategy.scorer.path is {self.path!r}; give the classifier's folder or hub id")
        _ = self._tokenizer  # a wrong path is refused before the run starts

    async def __call__(self, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler) -> list[Score]:
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._thread, self._score, problem, each.conclusion) for each in trajectories]
        return await asyncio.gather(*jobs)

    def ratings(self, prompt: str, steps: Sequence[str]) -> list[float] | None:
        """The rating of each step, in [0, 1]; None if prompt and steps together exceed the classifier's context."""
        import torch

        start = [] if self._tokenizer.bos_token_id is None else [self._tokenizer.bos_token_id]
        pieces = [self._encode(step) + self._encode(self.separator) for step in steps]
        tokens = [*start, *self._encode(prompt), *chain.from_iterable(pieces)]
        if len(tokens) > self._context:
            return None
        ends, place = [], len(tokens) - sum(map(len, pieces)) - 1
        for piece in pieces:
            place += len(piece)
            ends.append(place)
        with torch.inference_mode():
            logits = self._net(input_ids=torch.tensor([tokens], device=self.device)).logits[0, ends]
        rated: list[float] = logits.float().softmax(-1)[:, 1].tolist()
        return rated

    def _score(self, problem: Problem, solution: str) -> Score:
        steps = [step.strip() for step in solution.split(self.separator) if step.strip()] or [solution]
        rated = self.ratings("\n".join(text_of(turn["content"]) for turn in problem.messages), steps)
        if rated is None:
            return Score(value=None, reason="longer than the process reward model's context")
        value = COMBINED[self.aggregate](rated)
        return Score(value=value) if math.isfinite(value) else Score(value=None, reason="the rating is not a number")

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self.path, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ValueError(self._unloadable(error)) from None
        kind = (config.architectures or ["nothing"])[0]
        if not kind.endswith("ForTokenClassification") or config.num_labels != 2:
            raise ValueError(
                f"strategy.scorer.path={self.path} holds a {kind} with {config.num_labels} labels; "
                "name a token classifier with two labels, as trained by TRL's PRMTrainer"
            )
        return config

    @cached_property
    def _context(self) -> float:
        return float(getattr(self._config, "max_position_embeddings", None) or math.inf)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        _ = self._config
        try:
            return AutoTokenizer.from_pretrained(self.path, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ValueError(self._unloadable(error)) from None

    @cached_property
    def _net(self) -> Any:
        from transformers import AutoModelForTokenClassification
        from transformers.utils import logging

        logging.set_verbosity_error()  # missing weights are reported below, in one line
        logging.disable_progress_bar()
        try:
            net, read = AutoModelForTokenClassification.from_pretrained(
                self.path, revision=self.revision, output_loading_info=True
            )
            net = net.to(self.device).eval()
        except Exception as error:  # safetensors, torch and transformers each raise their own for a damaged file
            raise ConfigError(self._unloadable(error)) from None
        if lacking := sorted(read["missing_keys"]):  # transformers fills them with random numbers
            raise ConfigError(f"strategy.scorer.path={self.path} lacks weights: {', '.join(lacking)}")
        return net

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "process-reward")

    def _unloadable(self, error: Exception) -> str:
        return f"strategy.scorer.path={self.path} cannot be loaded: {(str(error).splitlines() or [''])[0]}"
