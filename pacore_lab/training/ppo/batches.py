"""Episodes of the synthesis environment: instances by number, their rollouts and their grades."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pacore_lab.errors import ConfigError
from pacore_lab.sampling.names import digest
from pacore_lab.training.environment import Counts, Instance, SynthesisEnvironment
from pacore_lab.training.ppo.rollout import Rollout, sample
from pacore_lab.training.ppo.sequences import Piece
from pacore_lab.training.ppo.settings import Settings
from pacore_lab.types import Completion, Grade, Prompt, Trajectory


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's episodes. pieces: the graded responses. rewards, logprobs (of each token): by the responses' places.

    facts: for the log.
    """

    pieces: list[Piece]
    rewards: list[float]
    logprobs: list[Sequence[float]]
    facts: dict[str, Any]


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """All tokens that end a turn, from the generation config and the tokenizer, as in the lab's own engines."""
    eos = model.generation_config.eos_token_id
    ids = eos if isinstance(eos, list) else [eos]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)


def render(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a conversation, ready for the answer, as in the lab's own engines."""
    text = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def trajectory(tokenizer: Any, rollout: Rollout, name: str, index: int = 0) -> Trajectory:
    """A rollout as the lab's own engines would return it."""
    tokens = rollout.tokens[:-1] if rollout.finish_reason == "stop" else rollout.tokens
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    completion = Completion(content=text, finish_reason=rollout.finish_reason, generated_tokens=len(rollout.tokens))
    return Trajectory(id=name, index=index, completion=completion)


class Episodes:
    """Plays the steps of a training in `environment` with `tokenizer`, graded in the event loop of `runner`.

    A step's instances and draws follow from (settings.seed, step) and the policy, so a resumed training continues
    exactly as it would have.
    """

    def __init__(
        self, environment: SynthesisEnvironment, tokenizer: Any, eos: frozenset[int], settings: Settings,
        runner: asyncio.Runner,
    ) -> None:  # fmt: skip
        self.environment, self.tokenizer, self.eos = environment, tokenizer, eos
        self.settings, self.runner = settings, runner

    def play(self, policy: Any, step: int, numbers: Sequence[int]) -> Batch:
        """One step's batch. Raises ConfigError for a prompt that leaves no room for a response."""
        import torch

        started = time.perf_counter()
        instances = [self.environment.instance(number) for number in numbers]
        prompts = [self._prompt(policy, instance) for instance in instances]
        seed = int(digest(["rollouts", self.settings.seed, step])[:15], 16)
        rollouts = sample(
            policy, prompts, self.settings.responses, max_tokens=self.settings.max_tokens, eos=self.eos,
            temperature=self.settings.temperature, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        sampled = time.perf_counter()
        episodes = [
            (instance, trajectory(self.tokenizer, rollout, f"{step}:{number}:{index}", index))
            for number, instance, made in zip(numbers, instances, rollouts, strict=True)
            for index, rollout in enumerate(made)
        ]
        grades = self.runner.run(self._grade(episodes))
        spent = {"rollout": sampled - started, "grade": time.perf_counter() - sampled}
        return self._batch(instances, prompts, rollouts, episodes, grades, spent)

    def _prompt(self, policy: Any, instance: Instance) -> list[int]:
        tokens = render(self.tokenizer, instance.prompt)
        context = policy.config.get_text_config().max_position_embeddings
        if len(tokens) + self.settings.max_tokens > context:
            raise ConfigError(
                f"record {instance.record!r} with {len(instance.messages)} messages makes a prompt of {len(tokens)} "
                f"tokens, and max_tokens is {self.settings.max_tokens}; the context holds {context}: lower one of them"
            )
        return tokens

    async def _grade(self, episodes: Sequence[tuple[Instance, Trajectory]]) -> list[Grade]:
        return await asyncio.gather(*(self.environment.reward(*episode) for episode in episodes))

    def _batch(
        self,
        instances: Sequence[Instance],
        prompts: Sequence[list[int]],
        rollouts: Sequence[Sequence[Rollout]],
        episodes: Sequence[tuple[Instance, Trajectory]],
        grades: Sequence[Grade],
        spent: dict[str, float],
    ) -> Batch:
        n = self.settings.responses
        pieces: list[Piece] = []
        rewards: list[float] = []
        logprobs: list[Sequence[float]] = []
        graded: Counter[int] = Counter()
        right: dict[int, float] = defaultdict(float)
        for row, (instance, prompt, made) in enumerate(zip(instances, prompts, rollouts, strict=True)):
            scores = [grade.score for grade in grades[row * n : row * n + n]]
            kept = [(rollout, score) for rollout, score in zip(made, scores, strict=True) if score is not None]
            if kept:
                places = range(len(rewards), len(rewards) + len(kept))
                pieces.append(Piece(prompt=prompt, responses=[each.tokens for each, _ in kept], places=places))
                rewards += [score for _, score in kept]
                logprobs += [each.logprobs for each, _ in kept]
            graded[len(instance.messages)] += len(kept)
            right[len(instance.messages)] += sum(score for _, score in kept)
        every = [rollout for made in rollouts for rollout in made]
        counts = sum((Counts.of(*episode, grade) for episode, grade in zip(episodes, grades, strict=True)), Counts())
        tokens = sum(len(rollout.tokens) for rollout in every)
        facts = {
            "reward": counts.reward / counts.graded if counts.graded else None,
            "length": tokens / len(every),
            "truncated": sum(rollout.finish_reason == "length" for rollout in every),
            "messages": sum(len(instance.messages) for instance in instances) / len(instances),
            "tokens": tokens,
            "counts": counts,
            "by_messages": {str(size): [graded[size], right[size]] for size in sorted(graded)},
            "spent": spent,
        }
        return Batch(pieces=pieces, rewards=rewards, logprobs=logprobs, facts=facts)
