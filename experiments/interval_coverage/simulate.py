"""Made-up problems, pools of samples and repeats, whose true accuracy is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pacore_lab.analysis.methods import Floats

WRONG = 8
"""How many wrong answers a problem has, some far more common than others."""
TRUTH = 200_000
"""How many fresh problems the true accuracy averages over; its standard error is at most 0.001."""


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """The chance of a right answer, beta distributed over problems."""

    mean: float
    concentration: float = 1.0

    def answers(self, rng: np.random.Generator, problems: int) -> Floats:
        """[problems, 1 + WRONG]: the chances of the answers, the right one first."""
        right = rng.beta(self.concentration * self.mean, self.concentration * (1 - self.mean), problems)
        wrong = rng.dirichlet(np.full(WRONG, 0.5), problems)
        return np.concatenate([right[:, None], (1 - right)[:, None] * wrong], axis=1)


def vote(counts: np.ndarray) -> Floats:
    """Score of the vote [...] over counts of answers [..., answers]; a tie scores the mean over the tied answers."""
    wins = counts == counts.max(axis=-1, keepdims=True)
    return np.asarray(wins[..., 0] / wins.sum(axis=-1))


def true_votes(answers: Floats, k: int, rng: np.random.Generator, times: int = 1) -> Floats:
    """[problems]: accuracy of fresh votes over k, averaged over `times` votes each."""
    return np.asarray(np.mean([vote(rng.multinomial(k, answers)) for _ in range(times)], axis=0))


def pooled_votes(pools: np.ndarray, k: int, redraws: int, rng: np.random.Generator) -> Floats:
    """[problems, redraws]: votes over k members of each pool [problems, answers], drawn without replacement."""
    drawn = [rng.multivariate_hypergeometric(pool, k, size=redraws, method="marginals") for pool in pools]
    return vote(np.array(drawn))
