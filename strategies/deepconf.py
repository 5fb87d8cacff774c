"""DeepConf (arXiv 2508.15260): votes weighted, filtered and cut short by the confidence of passages.

Token confidences are in `Completion.confidences`; a group is a window of tokens, and its confidence is their mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pacore_lab.errors import require_count, require_share
from pacore_lab.interfaces import Arrivals, Grader, Sampler
from pacore_lab.types import Problem, Round, Solution, Trajectory
from strategies.election import classified, elected, require_comparable

Score: TypeAlias = Literal["mean", "tail", "lowest_group", "bottom_10"]


@dataclass(frozen=True, kw_only=True)
class DeepConfOffline:
    """Samples n complete traces. The most confident fraction `keep` of those with an answer vote, weighted by score.

    score: the mean confidence of all tokens, of the last `tail` tokens, of the lowest window of `window` tokens, or of
    the lowest 10 % of windows (sections 2 and 3.1). A trace shorter than the window is one window. Traces
    that reach the (1 - keep) percentile of the scores are kept (section 3.2).
    Raises ValueError for arguments out of range and for a grader whose answers cannot be compared.
    """

    n: int
    grader: Grader
    score: Score = "bottom_10"
    keep: float = 0.1
    window: int = 2048
    tail: int = 2048
    needs = frozenset({"logprobs", "top_logprobs", "answers"})

    def __post_init__(self) -> None:
        for key in ("n", "window", "tail"):
            require_count(f"strategy.{key}", getattr(self, key))
        if self.score not in ("mean", "tail", "lowest_group", "bottom_10"):
            raise ValueError(f"strategy.score is {self.score!r}; give mean, tail, lowest_group or bottom_10")
        require_share("strategy.keep", self.keep)
        require_comparable(self.grader)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        traces = await classified(await sampler.sample(problem.messages, self.n), self.grader)
        voters = [trace for trace in traces if trace.answer_class is not None]
        if not voters:
            return elected(traces, [Round.of(traces)])
        scores = [self._score(voter) for voter in voters]
        least = _percentile(scores, self.keep)
        weights = [score if score >= least else 0.0 for score in scores]
        return elected(voters, [Round.of(traces)], weights=weights)

    def _score(self, trace: Trajectory) -> float:
        tokens = _confidences(trace)
        if self.score == "mean":
            return float(tokens.mean())
        if self.score == "tail":
            return float(tokens[-self.tail :].mean())
        groups = np.sort(group_confidences(tokens, self.window))
        return float(groups[: max(len(groups) // 10, 1) if self.score == "bottom_10" else 1].mean())


@dataclass(frozen=True, kw_only=True)
class DeepConfOnline:
    """Aborts a trace once the confidence of a whole window falls below a threshold (section 3.3).

    `warmup` complete traces set the threshold: the (1 - keep) percentile of their lowest windows, so keep=0.1 is
    DeepConf-low and 0.9 DeepConf-high. The rest of `budget` traces follow, `batch` at a time, and are checked every
    `every` tokens. A trace, of the warm-up or later, votes if its lowest window reaches the threshold, weighted by that
    window's confidence. Once the leading answer has the share `consensus` of the weight, the remaining traces are
    aborted or not started.
    Raises ValueError for arguments out of range and for a grader whose answers cannot be compared.
    """

    grader: Grader
    warmup: int = 16
    budget: int = 512
    batch: int = 16
    keep: float = 0.1
    window: int = 2048
    every: int = 64
    consensus: float = 0.95
    needs = frozenset({"partial", "logprobs", "top_logprobs", "answers"})

    def __post_init__(self) -> None:
        for key in ("warmup", "budget", "batch", "window", "every"):
            require_count(f"strategy.{key}", getattr(self, key))
        if self.warmup > self.budget:
            raise ValueError(f"strategy.warmup is {self.warmup} of strategy.budget={self.budget}; give at most that")
        require_share("strategy.keep", self.keep)
        require_share("strategy.consensus", self.consensus)
        require_comparable(self.grader)

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        warm = await sampler.sample(problem.messages, self.warmup)
        lowest = [self._lowest(trace) for trace in warm if _usable(trace)]
        if not lowest:
            reason = f"none of {len(warm)} warm-up trajectories sets a threshold"
            return Solution(answers=(), rounds=(Round.of(warm),), reason=reason)
        poll = _Poll(self.grader, self.consensus)
        threshold = _percentile(lowest, self.keep)
        for trace in warm:
            self._vote(trace, threshold, poll)
        later: list[Trajectory] = []
        left = self.budget - self.warmup
        while left and not await poll.decided():
            batch = min(self.batch, left)
            left -= batch
            async with sampler.stream(problem.messages, batch, every=self.every) as arrivals:
                later += await self._finished(arrivals, threshold, poll)
        traces = await classified([*warm, *sorted(later, key=lambda trace: trace.index)], self.grader)
        rounds = [Round.of(part) for part in (traces[: self.warmup], traces[self.warmup :]) if part]
        voters = [trace for trace in traces if trace.id in poll.weights]
        if not voters:
            reason = f"no valid answer among the trajectories whose confidence reaches {threshold:.4g}"
            return Solution(answers=(), rounds=tuple(rounds), reason=reason)
        return elected(voters, rounds, weights=[poll.weights[voter.id] for voter in voters])

    async def _finished(self, arrivals: Arrivals, threshold: float, poll: _Poll) -> list[Trajectory]:
        """The traces of a batch that finish before the vote is decided; the unsure ones are aborted."""
        finished: list[Trajectory] = []
        async for trace in arrivals:
            if not trace.running:
                finished.append(trace)
                self._vote(trace, threshold, poll)
                if await poll.decided():
                    break
            elif len(trace.completion.confidences or ()) >= self.window and self._lowest(trace) < threshold:
                arrivals.abort(trace)
        return finished

    def _vote(self, trace: Trajectory, threshold: float, poll: _Poll) -> None:
        if _usable(trace) and (weight := self._lowest(trace)) >= threshold:
            poll.cast(trace, weight)

    def _lowest(self, trace: Trajectory) -> float:
        return float(group_confidences(_confidences(trace), self.window).min())


class _Poll:
    """The votes so far. Each answer is extracted only once: extraction is slow, and a vote has hundreds of traces."""

    def __init__(self, grader: Grader, consensus: float) -> None:
        self._grader, self._consensus = grader, consensus
        self._answers: list[str] = []
        self.weights: dict[str, float] = {}

    def cast(self, trace: Trajectory, weight: float) -> None:
        answer = self._grader.extract(trace)
        if answer is not None:
            self._answers.append(answer)
            self.weights[trace.id] = weight

    async def decided(self) -> bool:
        totals: Counter[int | None] = Counter()
        for name, weight in zip(await self._grader.classes(self._answers), self.weights.values(), strict=True):
            totals[name] += weight  # type: ignore[assignment]
        return bool(totals) and max(totals.values()) >= self._consensus * sum(totals.values())


def group_confidences(tokens: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """The mean of each window of `window` tokens, sliding by one token; of all tokens if there are fewer."""
    window = min(window, len(tokens))
    sums = np.concatenate([[0.0], np.cumsum(tokens)])
    means: npt.NDArray[np.float64] = (sums[window:] - sums[:-window]) / window
    return means


def _usable(trace: Trajectory) -> bool:
    return trace.error is None and trace.completion.generated_tokens > 0


def _confidences(trace: Trajectory) -> npt.NDArray[np.float64]:
    if not trace.completion.confidences:
        raise ValueError(f"trajectory {trace.id} has no confidences; set model.logprobs=true model.top_logprobs=20")
    return np.array(trace.completion.confidences)


def _percentile(scores: Sequence[float], keep: float) -> float:
    """The score that a trace needs to be among the most confident fraction `keep`."""
    return float(np.percentile(scores, 100 * (1 - keep)))
