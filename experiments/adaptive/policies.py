"""Adaptive PaCoRe against fixed [32, 4] on common draws: `python -m experiments.adaptive.policies search|arithmetic`.

search: pacore-tiny on the problems it was trained for. arithmetic: sums that rlvr-tiny explores and sums-tiny
(`experiments.adaptive.sums`) synthesizes. The policies were chosen on problems of seed 10; the table uses another seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.adaptive.runs import run_all, write_plot, write_table

HERE = Path(__file__).resolve().parent
FIXED = "PaCoRe [32, 4]"
OF = "strategy=pacore strategy.schedule.of.widths=[32,4]"


def until_agreed(widths: str, least: int, *, accumulate: bool) -> str:
    """Rounds of these widths, until all answers of one round agree."""
    return (
        f"strategy=pacore strategy/schedule=skip_agreed strategy.schedule.of.widths={widths}"
        f" strategy.schedule.rule.least={least} strategy.schedule.rule.share=1.0"
        f" strategy.accumulate={str(accumulate).lower()}"
    )


COMMON = {
    FIXED: "strategy=pacore_high",
    "PaCoRe [16]": "strategy=pacore_medium",
    "majority vote @37": "strategy=majority_vote strategy.k=37",
    "adaptive consistency, at most 40": "strategy=adaptive_consistency strategy.batch=2",
    "[32, 4], quorum 3/4": f"{OF} strategy/schedule=quorum",
    "[32, 4], skip if unanimous": f"{OF} strategy/schedule=skip_agreed strategy.schedule.rule.share=1.0",
    "[32, 4], stop at agreement, then synthesize": f"{OF} strategy/schedule=agreement_stop strategy.schedule.batch=4"
    " strategy.schedule.then=synthesize",
    "[32, 4], stop at agreement 0.95": f"{OF} strategy/schedule=agreement_stop strategy.schedule.batch=4",
    "[32, 4], stop at agreement 0.99": f"{OF} strategy/schedule=agreement_stop strategy.schedule.batch=4"
    " strategy.schedule.rule.threshold=0.99",
    "[16], then up to 16 by disagreement": "strategy=pacore strategy/schedule=by_disagreement",
    "8, then 16 on average where answers disagree": "strategy=allocated",
}
POLICIES = {
    "search": {
        **COMMON,
        "rounds of 2 until agreed, all messages": until_agreed("[2,2,2,2,2,2,2,2]", 2, accumulate=True),
        "rounds of 3 until agreed, all messages": until_agreed("[3,3,3,3,3,3,3,3]", 3, accumulate=True),
        "rounds of 4 until agreed, all messages": until_agreed("[4,4,4,4,4,4,4,4]", 4, accumulate=True),
        "rounds of 4 until agreed, last messages": until_agreed("[4,4,4,4,4,4,4,4]", 4, accumulate=False),
        "8, then rounds of 4 until agreed, all messages": until_agreed("[8,4,4,4,4,4]", 4, accumulate=True),
    },
    "arithmetic": {
        **COMMON,
        "[32, 4], stop at agreement 0.8, batches of 2": f"{OF} strategy/schedule=agreement_stop"
        " strategy.schedule.batch=2 strategy.schedule.rule.threshold=0.8",
        "[32, 4], stop at 0.8, batches of 2, then synthesize": f"{OF} strategy/schedule=agreement_stop"
        " strategy.schedule.batch=2 strategy.schedule.rule.threshold=0.8 strategy.schedule.then=synthesize",
        "[32, 4], stop at agreement 0.9, batches of 2": f"{OF} strategy/schedule=agreement_stop"
        " strategy.schedule.batch=2 strategy.schedule.rule.threshold=0.9",
        "rounds of 4 until agreed, last messages": until_agreed("[4,4,4,4]", 4, accumulate=False),
    },
}
MODELS = {"search": "pacore_tiny", "arithmetic": "rlvr_tiny"}
SYNTHESIZER = (
    " model@roles.synthesize=custom roles.synthesize.model.name=sums-tiny roles.synthesize.model.dtype=float32"
    f" roles.synthesize.model.path={HERE / 'sums-tiny'}"
)


def synthesizes(words: str) -> bool:
    """Whether a strategy synthesizes: votes do not, and a model for an unused role is refused."""
    return words.startswith(("strategy=pacore", "strategy=allocated"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", choices=POLICIES)
    parser.add_argument("--n", type=int, default=200, help="number of problems; %(default)s")
    parser.add_argument("--repeats", type=int, default=8, help="%(default)s")
    parser.add_argument("--seed", type=int, default=20, help="seed of the problems; %(default)s")
    parser.add_argument("--only", nargs="+", metavar="POLICY", help=f"policies to run besides {FIXED!r}; default: all")
    parser.add_argument("--work", type=Path, default=Path("outputs/policies"), help="folder for the runs; %(default)s")
    parser.add_argument("--to", type=Path, default=HERE / "results", help="folder for the table; %(default)s")
    given = parser.parse_args()
    chosen = POLICIES[given.problems]
    if unknown := set(given.only or ()) - set(chosen):
        parser.error(f"--only {min(unknown)!r} is not a policy on {given.problems}; choose from: {'; '.join(chosen)}")
    draws = [f"problems.n={given.n}", f"problems.seed={given.seed}", f"repeats={given.repeats}", "grader.cache=null"]
    common = [f"problems={given.problems}", f"model={MODELS[given.problems]}", *draws]
    policies = {
        name: words + (SYNTHESIZER if given.problems == "arithmetic" and synthesizes(words) else "")
        for name, words in chosen.items()
        if given.only is None or name in (FIXED, *given.only)
    }
    work = given.work / f"{given.problems}-{given.n}x{given.repeats}-seed{given.seed}"
    folders = run_all(policies, common, work, shared=True)
    rows = write_table(folders, given.to / f"{given.problems}.csv", baseline=FIXED)
    write_plot(rows, given.to / f"{given.problems}.png", always=[FIXED, "PaCoRe [16]", "majority vote"])


if __name__ == "__main__":
    main()
