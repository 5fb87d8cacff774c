"""What perfect solvers of searches reach, alone and by vote: `python -m experiments.tiny_models.ceiling`.

Each tries one box at random. If the answer is not in it, the solver guesses a candidate from another box.
"""

import numpy as np

from pacore_lab.problems.search import Search

DRAWS = 20_000


def votes(search: Search, widths: tuple[int, ...], seed: int = 0) -> dict[int, tuple[float, float]]:
    """For each width: accuracy of a majority vote (ties broken at random), and how often any answer is right at all."""
    rng = np.random.default_rng(seed)
    candidates = search.boxes * search.box
    found: dict[int, tuple[float, float]] = {}
    for width in widths:
        right = rng.integers(candidates, size=(DRAWS, 1))
        tried = rng.integers(search.boxes, size=(DRAWS, width))
        elsewhere = (tried + rng.integers(1, search.boxes, size=tried.shape)) % search.boxes
        guess = elsewhere * search.box + rng.integers(search.box, size=tried.shape)
        answers = np.where(tried == right // search.box, right, guess)
        counts = (answers[:, :, None] == np.arange(candidates)).sum(axis=1)
        best = counts == counts.max(axis=1, keepdims=True)
        won = np.take_along_axis(best, right, axis=1)[:, 0] / best.sum(axis=1)
        found[width] = (float(won.mean()), float((answers == right).any(axis=1).mean()))
    return found


if __name__ == "__main__":
    for width, (vote, any_right) in votes(Search(), (1, 4, 6, 16, 18, 32, 38)).items():
        print(f"{width:3d} perfect solvers: vote {100 * vote:.1f} %, at least one right {100 * any_right:.1f} %")
