"""verl's naive reward manager, which also tells the reward whether a response was truncated.

reward.reward_manager.source=importlib reward.reward_manager.name=Truncating
reward.reward_manager.module.path=pkg://pacore_lab.training.verl.manager
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager


class Truncating(NaiveRewardManager):  # type: ignore[misc]
    """A response without an end-of-turn token at its end was truncated: extra_info["truncated"].

    vLLM's "length" does not reach this point, and a box inside thinking that never ended is not an answer.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **others: Any) -> None:
        super().__init__(config, tokenizer, compute_score, **others)
        self._ends = _ends(Path(config.actor_rollout_ref.model.path), tokenizer)

    async def run_single(self, data: Any) -> dict[str, Any]:
        import numpy as np

        single = data[-1:]
        responses = single.batch["responses"][0]
        mask = single.batch["attention_mask"][0]
        length = int(mask[len(mask) - len(responses) :].sum())
        cut = length > 0 and int(responses[length - 1]) not in self._ends
        own = np.empty(1, dtype=object)  # responses to one prompt may share this dict
        own[0] = {**single.non_tensor_batch.get("extra_info", [{}])[0], "truncated": cut}
        single.non_tensor_batch["extra_info"] = own
        found: dict[str, Any] = await super().run_single(single)
        return found


def _ends(checkpoint: Path, tokenizer: Any) -> frozenset[int]:
    """All tokens that end a turn, from the tokenizer and from the checkpoint's generation config, if it has one."""
    from transformers import GenerationConfig

    ids = [tokenizer.eos_token_id]
    if (checkpoint / "generation_config.json").is_file():
        eos = GenerationConfig.from_pretrained(str(checkpoint)).eos_token_id
        ids += eos if isinstance(eos, list) else [eos]
    return frozenset(token for token in ids if token is not None)
