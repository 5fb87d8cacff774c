"""How often 95 % intervals contain the truth: ours beside the naive ones. See README.md."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.interval_coverage.simulate import TRUTH, Difficulty, pooled_votes, true_votes
from pacore_lab.analysis import Pools, accuracy_interval, difference_interval, nested
from pacore_lab.analysis.methods import Floats

POOL = 512
HARD, EVEN, EASY = Difficulty(mean=0.2), Difficulty(mean=0.5), Difficulty(mean=0.9)
SURE = Difficulty(mean=0.97)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One setting's results: the share of simulations in which each interval held the truth, and the mean widths."""

    setting: str
    truth: float
    ours: float
    naive: float
    ours_width: float
    naive_width: float
    simulations: int

    def row(self) -> str:
        error = 100 * np.sqrt(self.ours * (1 - self.ours) / self.simulations)
        ours = f"{100 * self.ours:.1f} ± {error:.1f} | {100 * self.ours_width:.1f}"
        naive = f"{100 * self.naive:.1f} | {100 * self.naive_width:.1f}"
        return f"| {self.setting} | {100 * self.truth:.1f} | {ours} | {naive} |"


def outcome(setting: str, truth: Floats | float, ours: Floats, naive: Floats) -> Outcome:
    """ours, naive: [simulations, 2]."""
    held = [((found[:, 0] <= truth) & (truth <= found[:, 1])).mean() for found in (ours, naive)]
    wide = [(found[:, 1] - found[:, 0]).mean() for found in (ours, naive)]
    return Outcome(
        setting=setting,
        truth=float(np.mean(truth)),
        ours=float(held[0]),
        naive=float(held[1]),
        ours_width=float(wide[0]),
        naive_width=float(wide[1]),
        simulations=len(ours),
    )


def naive_interval(values: Floats) -> Floats:
    """[simulations, 2] from [simulations, problems, repeats], treating every redraw as another problem."""
    flat = values.reshape(len(values), -1)
    half = 1.96 * flat.std(axis=1, ddof=1) / np.sqrt(flat.shape[1])
    return np.stack([flat.mean(axis=1) - half, flat.mean(axis=1) + half], axis=1)


def naive_within(values: Floats) -> Floats:
    """[low, high] from [problems, repeats], treating redraws as independent, on these problems."""
    half = 1.96 * np.sqrt((values.var(axis=1, ddof=1) / values.shape[1]).sum()) / len(values)
    return np.array([values.mean() - half, values.mean() + half])


def difference_intervals(leads: Floats, repeats: float) -> Floats:
    """[simulations, 2] from [simulations, problems, repeats]."""
    squares = (leads**2).mean(axis=(1, 2))
    means = leads.mean(axis=2).tolist()
    return np.array([difference_interval(row, repeats, q) for row, q in zip(means, squares, strict=True)])


def worth(k: int, redraws: int) -> float:
    """What the redraws of a pool are worth, as `Method.repeats` computes it from the trajectories' names."""
    return redraws / (1 + (redraws - 1) * k / POOL)


def votes(rng: np.random.Generator, difficulty: Difficulty, n: int, k: int, redraws: int, simulations: int) -> Outcome:
    """Accuracy of maj@k over shared pools."""
    answers = difficulty.answers(rng, simulations * n)
    scores = pooled_votes(rng.multinomial(POOL, answers), k, redraws, rng).reshape(simulations, n, redraws)
    truth = float(true_votes(difficulty.answers(rng, TRUTH), k, rng).mean())
    means = scores.mean(axis=2)
    ours = np.array([accuracy_interval(row, worth(k, redraws)) for row in means.tolist()])
    setting = f"vote @{k} of {POOL}, {n} problems, {redraws} redraws"
    return outcome(setting, truth, ours, naive_interval(scores))


def single(rng: np.random.Generator, difficulty: Difficulty, n: int, repeats: int, simulations: int) -> Outcome:
    """Accuracy of a single sample, with independent repeats."""
    right = difficulty.answers(rng, simulations * n)[:, 0].reshape(simulations, n, 1)
    scores = (rng.random((simulations, n, repeats)) < right).astype(float)
    ours = np.array([accuracy_interval(row, repeats) for row in scores.mean(axis=2).tolist()])
    setting = f"single sample, {n} problems, {repeats} repeats"
    return outcome(setting, difficulty.mean, ours, naive_interval(scores))


def paired_votes(
    rng: np.random.Generator, difficulty: Difficulty, n: int, ks: tuple[int, int], redraws: int, simulations: int
) -> Outcome:
    """maj@k for the larger k minus maj@k for the smaller, on the same pools."""
    pools = rng.multinomial(POOL, difficulty.answers(rng, simulations * n))
    few, many = (pooled_votes(pools, k, redraws, rng).reshape(simulations, n, redraws) for k in ks)
    fresh = difficulty.answers(rng, TRUTH)
    truth = float((true_votes(fresh, ks[1], rng, 4) - true_votes(fresh, ks[0], rng, 4)).mean())
    leads = many - few
    ours = difference_intervals(leads, worth(ks[1], redraws))
    setting = f"vote @{ks[1]} − vote @{ks[0]} of {POOL}, {n} problems, {redraws} redraws"
    return outcome(setting, truth, ours, naive_interval(leads))


def paired_singles(
    rng: np.random.Generator, difficulty: Difficulty, lead: float, n: int, repeats: int, simulations: int
) -> Outcome:
    """A method that corrects a part of the wrong answers, on the same draws."""
    right = difficulty.answers(rng, simulations * n)[:, 0].reshape(simulations, n, 1)
    part = lead / (1 - difficulty.mean)
    draws = rng.random((simulations, n, repeats))
    leads = np.asarray((draws < right + (1 - right) * part) * 1.0 - (draws < right), dtype=np.float64)
    ours = difference_intervals(leads, repeats)
    setting = f"a lead of {100 * lead:.0f} points over {100 * difficulty.mean:.0f} %, {n} problems, {repeats} repeats"
    return outcome(setting, lead, ours, naive_interval(leads))


def bootstrapped(
    rng: np.random.Generator, difficulty: Difficulty, n: int, k: int, redraws: int, simulations: int, draws: int
) -> tuple[Outcome, Outcome]:
    """The nested bootstrap of maj@k: over problems, and on these problems."""
    both, within, naive, naive_given, given = [], [], [], [], []
    for _ in range(simulations):
        answers = difficulty.answers(rng, n)
        members = np.array([rng.choice(answers.shape[1], POOL, p=chances / chances.sum()) for chances in answers])
        pools = Pools.of(
            [str(i) for i in range(n)],
            members.tolist(),
            (members == 0).astype(float).tolist(),
            [[1.0] * POOL] * n,
        )
        found = nested(pools, k, redraws=redraws, draws=draws, seed=int(rng.integers(2**31)))
        counts = np.array([np.bincount(row, minlength=answers.shape[1]) for row in members])
        scores = pooled_votes(counts, k, redraws, rng)
        naive.append(naive_interval(scores[None])[0])
        naive_given.append(naive_within(scores))
        both.append(found.interval)
        within.append(found.interval_within)
        given.append(float(true_votes(answers, k, rng, 1_000).mean()))
    truth = float(true_votes(difficulty.answers(rng, TRUTH), k, rng).mean())
    setting = f"vote @{k} of {POOL}, {n} problems, {redraws} redraws"
    return (
        outcome(f"{setting}: nested bootstrap", truth, np.array(both), np.array(naive)),
        outcome(f"{setting}: on these problems", np.array(given), np.array(within), np.array(naive_given)),
    )


def study(seed: int, simulations: int) -> Iterator[tuple[str, Outcome]]:
    """(heading, outcome) of each setting; "few events" are settings in which fewer than four problems decide."""
    rng = np.random.default_rng(seed)
    heading = "accuracy of votes over shared pools"
    for difficulty, n, k, redraws in (
        (EVEN, 10, 256, 64), (EVEN, 30, 16, 64), (EVEN, 30, 256, 4), (EVEN, 30, 256, 64), (HARD, 30, 64, 16),
        (EVEN, 100, 256, 16), (EASY, 30, 64, 16), (EASY, 100, 64, 16),
    ):  # fmt: skip
        yield heading, votes(rng, difficulty, n, k, redraws, simulations)
    heading = "accuracy of single samples, independent repeats"
    for difficulty, n, repeats in (
        (EVEN, 10, 4), (EVEN, 30, 1), (EVEN, 30, 16), (HARD, 100, 4), (EASY, 30, 4), (EASY, 100, 64),
    ):  # fmt: skip
        yield heading, single(rng, difficulty, n, repeats, simulations)
    heading = "paired differences"
    for difficulty, n, ks, redraws in ((EVEN, 30, (4, 64), 16), (EASY, 100, (4, 64), 16)):
        yield heading, paired_votes(rng, difficulty, n, ks, redraws, simulations)
    for difficulty, lead, n, repeats in (
        (EVEN, 0.15, 30, 1), (EVEN, 0.15, 30, 4), (EVEN, 0.05, 100, 1), (EVEN, 0.05, 100, 16), (EASY, 0.05, 100, 4),
    ):  # fmt: skip
        yield heading, paired_singles(rng, difficulty, lead, n, repeats, simulations)
    heading = "few events"
    yield heading, votes(rng, SURE, 10, 64, 16, simulations)
    yield heading, votes(rng, SURE, 30, 64, 16, simulations)
    yield heading, single(rng, SURE, 10, 4, simulations)
    yield heading, single(rng, SURE, 30, 64, simulations)
    yield heading, paired_votes(rng, EVEN, 30, (16, 256), 64, simulations)
    for difficulty, n, repeats in ((EVEN, 30, 4), (EASY, 10, 1), (EASY, 30, 4)):
        yield heading, paired_singles(rng, difficulty, 0.05, n, repeats, simulations)
    rng = np.random.default_rng([seed, 1])
    for found in bootstrapped(rng, EVEN, 30, 64, 16, simulations, 200):
        yield "nested bootstrap", found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started, kind = time.monotonic(), ""
    for heading, found in study(args.seed, args.simulations):
        if heading != kind:
            kind = heading
            print(f"\n{heading}\n")
            print("| setting | truth % | ours: coverage % | width | naive: coverage % | width |")
            print("| --- | --- | --- | --- | --- | --- |")
        print(found.row(), flush=True)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
