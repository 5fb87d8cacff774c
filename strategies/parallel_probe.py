"""Parallel-Probe (arXiv 2602.03845): branches are probed for an answer while they think, and pruned or stopped by it.

The defaults of branches, warmup, patience and stable are those of the authors' evaluation
(github.com/zhengkid/Parallel-Probe, evaluation_main_table.py), and that of every is their data's; the probe's wording
and length are ours. Their code differs in two ways: it probes once more before the first round that counts, and it
takes the majority again without the branches that it has just pruned.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Arrivals, Grader, Sampler
from pacore_lab.types import ChatMessage, Problem, Round, Solution, Trajectory
from pacore_lab.votes import winners
from strategies.election import classified, elected, require_comparable


@dataclass(frozen=True, kw_only=True)
class ParallelProbe:
    """Runs `branches` at once; whenever all running branches have `every` more tokens, each is probed.

    A probe continues a branch's text and `probe` for `probe_tokens` tokens, up to the brace that closes the box. The
    majority of a round is taken over its probes and the finished branches' answers; a tie keeps the standing majority.
    A branch is aborted after `patience` rounds in a row in which its probe was outside the majority or gave no answer.
    Failed probes and the first `warmup` rounds do not count; the last running branch is kept; aborted branches do not
    vote. After `stable` rounds in a row that leave the majority unchanged, all branches are aborted and the majority is
    the answer. Otherwise the finished branches vote.
    A branch that waits for a slot delays the probes of all: `concurrency` should exceed `branches`.
    Raises ValueError for arguments out of range and for a grader whose answers cannot be compared.
    """

    grader: Grader
    branches: int = 64
    every: int = 500
    warmup: int = 15
    patience: int = 7
    stable: int = 40
    probe: str = "\n</think>\n\nThe final answer is \\boxed{"
    probe_tokens: int = 20
    needs = frozenset({"partial", "prefill", "answers"})

    def __post_init__(self) -> None:
        for key in ("branches", "every", "patience", "stable", "probe_tokens"):
            require_count(f"strategy.{key}", getattr(self, key))
        require_count("strategy.warmup", self.warmup, least=0)
        if not self.probe.endswith("{"):
            raise ValueError(f"strategy.probe is {self.probe!r}; end it with an open brace, e.g. \\boxed{{")
        require_comparable(self.grader)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        state = _State(running=self.branches)
        async with sampler.stream(problem.messages, self.branches, every=self.every) as arrivals:
            async for branch in arrivals:
                state.take(branch if branch.running else self._read(branch), self.every)
                if state.waiting and len(state.waiting) == state.running:
                    asked = state.ask(self.every)
                    probes = await self._probe(problem, asked, sampler)
                    leader = await self._judge(state, probes)
                    self._prune(state, asked, leader, arrivals)
                    if leader is not None and state.unchanged >= self.stable:
                        return Solution(answers=(leader,), rounds=state.rounds())
        state.finished = await classified(state.finished, self.grader)
        return elected(state.finished, state.rounds())

    async def _probe(self, problem: Problem, branches: Sequence[Trajectory], sampler: Sampler) -> list[Trajectory]:
        """Each branch's answer if it had to answer now, in its box, so that a grader reads it like any trajectory."""
        texts = [branch.completion.content + self.probe for branch in branches]
        prompts = [(*problem.messages, ChatMessage(role="assistant", content=text)) for text in texts]
        calls = [sampler.sample(prompt, 1, max_tokens=self.probe_tokens) for prompt in prompts]
        probes = []
        for [probe] in await asyncio.gather(*calls):
            if not probe.error and (inside := _up_to_the_brace(probe.content)):
                completion = replace(probe.completion, content=self.probe + inside, finish_reason="stop")
                probe = self._read(replace(probe, completion=completion))
            probes.append(probe)
        return probes

    def _read(self, trajectory: Trajectory) -> Trajectory:
        return replace(trajectory, answer=self.grader.extract(trajectory))

    async def _judge(self, state: _State, probes: Sequence[Trajectory]) -> Trajectory | None:
        """A trajectory with the majority answer of this round; None if there is no answer."""
        votes = [*state.finished, *probes]
        standing, *classes = await self.grader.classes([state.majority, *(vote.answer for vote in votes)])
        votes = [replace(vote, answer_class=name) for vote, name in zip(votes, classes, strict=True)]
        state.finished, last = votes[: len(state.finished)], votes[len(state.finished) :]
        state.probes.append(last)
        best = {votes[place].answer_class: votes[place] for place in winners(classes)}
        state.unchanged = state.unchanged + 1 if standing in best else 0
        leader = best.get(standing) or next(iter(best.values()), None)
        state.majority = leader.answer if leader else None
        return leader

    def _prune(self, state: _State, asked: Sequence[Trajectory], leader: Trajectory | None, arrivals: Arrivals) -> None:
        if leader is None or len(state.probes) <= self.warmup:
            return
        for branch, probe in zip(asked, state.probes[-1], strict=True):
            if probe.answer_class == leader.answer_class:
                state.astray[branch.id] = 0
            elif probe.error is None:
                state.astray[branch.id] += 1
            if state.astray[branch.id] >= self.patience and state.running > 1:
                arrivals.abort(branch)
                state.running -= 1


@dataclass(kw_only=True)
class _State:
    """The state of an episode. running: how many branches are neither finished nor aborted.

    waiting: the running branches that are due for a probe. marks: each branch's tokens when it was last probed, in
    units of `every`. astray: for how many rounds in a row each branch was outside the majority. majority: its answer;
    unchanged: for how many rounds after its first it has stood.
    """

    running: int
    waiting: dict[str, Trajectory] = field(default_factory=dict)
    marks: Counter[str] = field(default_factory=Counter)
    finished: list[Trajectory] = field(default_factory=list)
    probes: list[list[Trajectory]] = field(default_factory=list)
    astray: Counter[str] = field(default_factory=Counter)
    majority: str | None = None
    unchanged: int = 0

    def take(self, branch: Trajectory, every: int) -> None:
        if not branch.running:
            self.waiting.pop(branch.id, None)
            self.finished.append(branch)
            self.running -= 1
        elif branch.completion.generated_tokens // every > self.marks[branch.id]:
            self.waiting[branch.id] = branch

    def ask(self, every: int) -> list[Trajectory]:
        """Takes the branches that are to be probed now."""
        asked = sorted(self.waiting.values(), key=lambda branch: branch.index)
        for branch in asked:
            self.marks[branch.id] = branch.completion.generated_tokens // every
        self.waiting.clear()
        return asked

    def rounds(self) -> tuple[Round, ...]:
        finished = sorted(self.finished, key=lambda branch: branch.index)
        return tuple(Round.of(part) for part in (finished, *self.probes) if part)


def _up_to_the_brace(text: str) -> str | None:
    r"""The text up to the brace that closes one opened before it; None if there is none. `\{` does not nest."""
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[: brace.end()]
    return None
