"""The training loop: TRL's GRPOTrainer (loop, checkpoints, resumption) with our own rollouts, critic and loss.

TRL has had no PPO since 1.13. Only the plumbing of GRPO is left: the advantages come from a critic.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import GRPOTrainer

from pacore_lab.errors import LabError
from pacore_lab.training.ppo.advantages import clipped_loss, gae, whiten
from pacore_lab.training.ppo.batches import Batch, Episodes
from pacore_lab.training.ppo.log import Log
from pacore_lab.training.ppo.sequences import Packed, log_probs, new_critic, pack, split, values
from pacore_lab.training.ppo.settings import Settings

if TYPE_CHECKING:
    import torch

CRITIC = "critic.pt"


class PPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """Trains `policy` in place on `episodes`; every file goes to `out`."""

    def __init__(self, policy: Any, episodes: Episodes, settings: Settings, out: Path) -> None:
        import torch
        from datasets import Dataset  # type: ignore[import-untyped]
        from transformers import PrinterCallback

        self.settings, self.episodes, self.out = settings, episodes, out
        self.critic = new_critic(policy)
        self.facts: dict[str, Any] = {}
        self.lines: Log | None = None
        self._draft: Path | None = None
        groups = [
            {"params": list(policy.parameters()), "lr": settings.lr},
            {"params": list(self.critic.parameters()), "lr": settings.critic_lr},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        warmup = settings.critic_warmup
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda t: float(t >= warmup), lambda t: 1.0])
        super().__init__(
            model=policy,
            reward_funcs=_unused,
            args=_arguments(settings, out),
            # a row is an instance's number; the loop repeats it for its group
            train_dataset=Dataset.from_dict({"prompt": range(settings.steps * settings.instances)}),
            processing_class=episodes.tokenizer,
            optimizers=(optimizer, schedule),
        )
        self.remove_callback(PrinterCallback)
        self.critic.train()

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _prepare_inputs(self, inputs: Sequence[dict[str, int]]) -> Batch:
        numbers = list(dict.fromkeys(row["prompt"] for row in inputs))
        return self.episodes.play(self.accelerator.unwrap_model(self.model), self.state.global_step, numbers)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Play the step's episodes, and leave the whole batch's gradients in policy and critic."""
        import torch

        if self.lines is None:
            self.lines = Log(self.out / "log.jsonl", self.state.global_step)
        model.train()
        batch = self._prepare_inputs(inputs)
        started = time.perf_counter()
        self.critic.zero_grad()
        packs = [pack(pieces, self.args.device) for pieces in split(batch.pieces, self.settings.micro_batch)]
        learned = self._learn_values(packs, batch)
        loss = self._learn_policy(packs, batch, learned.pop("advantages"))
        torch.nn.utils.clip_grad_norm_(self.critic.parameters(), self.settings.max_grad_norm)
        spent = batch.facts["spent"] | {"train": time.perf_counter() - started}
        self.facts = {**batch.facts, **learned, **loss, "counts": asdict(batch.facts["counts"])}
        self.facts["spent"] = {key: round(seconds, 3) for key, seconds in spent.items()}
        total = torch.tensor(self.facts["loss"] or 0.0, device=self.args.device)
        if not torch.isfinite(total + (learned["value_loss"] or 0.0)):
            raise LabError(f"step {self.state.global_step + 1}: the loss is not finite; lower lr or critic_lr")
        return total

    def _learn_values(self, packs: Sequence[Packed], batch: Batch) -> dict[str, Any]:
        """Backward through the critic. Its targets are the advantages plus its own values, so one pass is enough."""
        import torch

        rewards = torch.tensor(batch.rewards, device=self.args.device)
        total = sum(len(packed.targets) for packed in packs)
        advantages, errors, returns = [], [], []
        for packed in packs:
            with self._half():
                said = values(self.critic, packed)
            table, inside = _table(said.detach(), packed.lengths)
            found = gae(
                rewards[packed.places], table, packed.lengths, gamma=self.settings.gamma, lam=self.settings.lam
            )[inside]
            target = found + said.detach()
            self.accelerator.backward(0.5 * (said - target).square().sum() / total)
            advantages.append(found)
            errors.append(target - said.detach())
            returns.append(target)
        if not packs:
            return {"advantages": [], "value_loss": None, "explained_variance": None}
        error, target = torch.cat(errors), torch.cat(returns)
        spread = target.var(unbiased=False)
        return {
            "advantages": torch.split(whiten(torch.cat(advantages)), [len(each) for each in advantages]),
            "value_loss": float(0.5 * error.square().mean()),
            "explained_variance": float(1 - error.var(unbiased=False) / spread) if spread > 0 else None,
        }

    def _learn_policy(
        self, packs: Sequence[Packed], batch: Batch, advantages: Sequence[torch.Tensor]
    ) -> dict[str, Any]:
        """Backward through the policy, except in the critic's warm-up: then the log-probabilities are only logged."""
        import torch

        total = sum(len(packed.targets) for packed in packs)
        warming = self.state.global_step < self.settings.critic_warmup
        loss, entropy, clipped = 0.0, 0.0, 0
        for packed, advantage in zip(packs, advantages, strict=True):
            drawn = [number for place in packed.places.tolist() for number in batch.logprobs[place]]
            old = torch.tensor(drawn, device=self.args.device)
            with self._half(), torch.set_grad_enabled(not warming):
                logs, spread = log_probs(self.model, packed, self.settings.temperature)
            each, cut = clipped_loss(logs, old, advantage, self.settings.clip)
            part = each.sum() / total
            if not warming:
                self.accelerator.backward(part)
            loss, clipped = loss + float(part.detach()), clipped + int(cut.sum())
            entropy += float(spread.sum())
        return {
            "loss": loss if total else None,
            "entropy": entropy / total if total else None,
            "clipped": clipped,
        }

    def _half(self) -> Any:
        import torch

        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.settings.half)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called after a step, before its checkpoint. TRL's own final line is left out."""
        if "grad_norm" not in logs:
            return
        assert self.lines is not None
        step, facts = self.state.global_step, self.facts
        self.lines.add({"step": step, **facts, "grad_norm": float(logs["grad_norm"]), "lr": logs["learning_rate"]})
        every = self.settings.snapshot_every
        if step == self.settings.steps or (every and step % every == 0):
            self._snapshot(self.out / f"policy-{step}")

    def _snapshot(self, folder: Path) -> None:
        draft = folder.with_name(f".{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        self.model.save_pretrained(draft)
        self.episodes.tokenizer.save_pretrained(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._draft or self.out)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write it beside its place and then move it there, so that a kill leaves the last one complete."""
        import torch

        name = f"checkpoint-{self.state.global_step}"
        self._draft = self.out / ".checkpoint"
        shutil.rmtree(self._draft, ignore_errors=True)
        try:
            super(GRPOTrainer, self)._save_checkpoint(model, trial)  # GRPO's own adds a model card
            torch.save(self.critic.state_dict(), self._draft / name / CRITIC)
            shutil.rmtree(self.out / name, ignore_errors=True)
            (self._draft / name).rename(self.out / name)
        finally:
            shutil.rmtree(self._draft, ignore_errors=True)
            self._draft = None
        for old in checkpoints(self.out)[:-2]:
            shutil.rmtree(old)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        import torch

        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.critic.load_state_dict(torch.load(Path(resume_from_checkpoint) / CRITIC, weights_only=True))


def checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints in a training's folder, oldest first."""
    return sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))


def _arguments(settings: Settings, out: Path) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(out),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.instances * settings.responses,
        num_generations=settings.responses,
        shuffle_dataset=False,
        learning_rate=settings.lr,
        max_grad_norm=settings.max_grad_norm,
        temperature=settings.temperature,
        max_completion_length=settings.max_tokens,
        seed=settings.seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=settings.save_every,
        disable_dropout=True,
        gradient_checkpointing=False,
        bf16=False,  # our own autocast covers only training's forward passes
        dataloader_pin_memory=False,
        disable_tqdm=True,
        use_cache=True,  # for the saved config; nothing is cached here
        report_to="none",
    )


def _table(flat: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[tokens] of consecutive responses -> [responses, tokens] padded with 0, and the mask that undoes it."""
    import torch

    inside = torch.arange(int(lengths.max()), device=flat.device) < lengths[:, None]
    table = flat.new_zeros(inside.shape)
    table[inside] = flat
    return table, inside


def _unused(**_: Any) -> list[float]:
    raise LabError("rewards come from the environment")
