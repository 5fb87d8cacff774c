"""verl's data set over the lab's records: item n is instance n of the synthesis environment.

    data.custom_cls.path=pkg://pacore_lab.training.verl.dataset data.custom_cls.name=SynthesisDataset

One pass over the data set is the whole training, steps * train_batch_size instances. The environment goes through the
problems epoch by epoch, in a new order and with new messages each time. All of that follows from (data.seed, n), so a
resumed training draws what it would have drawn, whatever the number of loader processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from verl.utils.dataset.rl_dataset import RLHFDataset

from pacore_lab.errors import ConfigError, DataError, require_count
from pacore_lab.grading.code import LcbSubprocess
from pacore_lab.grading.math_grader import MathGrader
from pacore_lab.training.environment import SynthesisEnvironment
from pacore_lab.training.records import read_records
from pacore_lab.training.verl.lengths import prompt_builder, token_counter
from pacore_lab.training.verl.reward import ground_truth


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`data.synthesis` of the trainer's config. steps: iterations in all, including those before a resumption.

    prompt: dotted name of the factory of P(x, M)'s builder. |M| is uniform in [m_min, m_max].
    Raises ValueError if `steps` is not a positive whole number.
    """

    steps: int
    prompt: str
    m_min: int
    m_max: int

    def __post_init__(self) -> None:
        require_count("data.synthesis.steps", self.steps)

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Settings:
        """Raises ConfigError for keys that are missing or unknown."""
        names = [field.name for field in fields(cls)]
        if given is None or sorted(given) != sorted(names):
            raise ConfigError(f"data.synthesis has {sorted(given or ())}; give it {', '.join(names)}")
        return cls(**{name: given[name] for name in names})


class SynthesisDataset(RLHFDataset):  # type: ignore[misc]
    """data.train_files: one file of records, JSON lines or parquet (`pacore_lab.training.records`).

    Raises ConfigError for settings that would change the environment's draws without its knowledge, and DataError for
    records that cannot be read and, from an item, for a prompt longer than data.max_prompt_length.
    """

    REFUSED: ClassVar[Mapping[str, Any]] = {"shuffle": False, "train_max_samples": -1, "val_max_samples": -1}

    def _read_files_and_tokenize(self) -> None:
        for key, wanted in self.REFUSED.items():
            if self.config.get(key, wanted) != wanted:
                raise ConfigError(f"data.{key} is {self.config[key]}; set it to {wanted}, since the environment draws")
        if len(self.data_files) != 1:
            raise ConfigError(f"data.train_files names {len(self.data_files)} files; join their records in one")
        if self.seed is None:
            raise ConfigError("data.seed is not set; give a number, which determines all draws")
        _require_visible_think(self.tokenizer)
        settings = Settings.of(self.config.get("synthesis"))
        environment = SynthesisEnvironment(
            records=read_records(Path(self.data_files[0])),
            prompt=prompt_builder(settings.prompt),
            graders={"math": MathGrader(), "code": LcbSubprocess(score="share")},  # never started: reward.py grades
            m_min=settings.m_min,
            m_max=settings.m_max,
            seed=self.seed,
        )
        count = token_counter(self.tokenizer, self.apply_chat_template_kwargs)
        self.dataframe = _Draws(
            environment, settings.steps * self.config.train_batch_size, count, self.max_prompt_length, self.prompt_key
        )


class _Draws:
    """verl's rows, made on demand."""

    def __init__(self, environment: SynthesisEnvironment, size: int, count: Any, most: int, prompt_key: str) -> None:
        self._environment, self._size, self._count, self._most = environment, size, count, most
        self._prompt_key = prompt_key

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(self._size))

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self._size:
            raise IndexError(number)
        instance = self._environment.instance(number)
        tokens = self._count(instance.prompt)
        if tokens > self._most:
            raise DataError(
                f"instance {number}, record {instance.record!r} with {len(instance.messages)} messages: the prompt has "
                f"{tokens} tokens, but data.max_prompt_length is {self._most}; sieve the records with "
                "python -m pacore_lab.training.verl.lengths"
            )
        domain = "code" if instance.problem.reference else "math"
        return {
            self._prompt_key: [dict(turn) for turn in instance.prompt],
            "data_source": domain,
            "ability": domain,
            "reward_model": {"style": "rule", "ground_truth": ground_truth(instance, number)},
            "extra_info": {"index": number, "split": "train"},
        }


def _require_visible_think(tokenizer: Any) -> None:
    """verl decodes responses without special tokens; if </think> were one, nothing would mark the end of thinking."""
    ids = tokenizer("a</think>b", add_special_tokens=False)["input_ids"]
    if "</think>" not in tokenizer.decode(ids, skip_special_tokens=True):
        raise ConfigError("the tokenizer has </think> as a special token; make it an ordinary added token")
