"""Every strategy at three budgets on the same problems: `python -m experiments.adaptive.zoo [--problems N]`.

A budget is a number of trajectories: 5, 17 and 37 are those of PaCoRe low, medium and high. Strategies that stop by
themselves may use fewer; those that ask for judgements, summaries or probes count these in. Every strategy samples its
own draws, the same under the same names, so its wall-clock is its own. `--budget` runs one of the three.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.adaptive.runs import run_all, write_plot, write_table

HERE = Path(__file__).resolve().parent
BUDGETS = {"low": 5, "medium": 17, "high": 37}
COMMON = ["problems=search", "model.logprobs=true", "model.top_logprobs=20", "grader.cache=null"]


def strategies(budget: str) -> dict[str, str]:
    """Words for run.py, by name. Windows and steps suit trajectories of about 34 tokens."""
    n = BUDGETS[budget]
    wide = {"low": "[4]", "medium": "[16]", "high": "[32,4]"}[budget]
    halves = {"low": "[2,2]", "medium": "[8,8]", "high": "[18,18]"}[budget]
    width = {"low": 2, "medium": 4, "high": 6}[budget]
    names = "abcdef"[:width]
    mixed = " ".join(f"model@roles.{name}=rlvr_tiny" for name in names[::2])
    logprobs = " ".join(f"roles.{name}.model.logprobs=true" for name in names[::2])
    layers = f"[{','.join([str(width)] * width)}]"
    proposers = f"[{','.join(['[' + ','.join(names) + ']'] * width)},aggregate]"
    of = f"strategy=pacore strategy.schedule.of.widths={wide}"
    return {
        "majority vote": f"strategy=majority_vote strategy.k={n}",
        "vote by likelihood": f"strategy=majority_vote strategy.k={n} strategy/weight=likelihood",
        "best of n, likelihood": f"strategy=best_of_n strategy.n={n}",
        "best of n, self-certainty": f"strategy=best_of_n strategy.n={n} strategy/scorer=self_certainty",
        "best of n, judge": f"strategy=best_of_n strategy.n={(n + 1) // 2} strategy/scorer=judge",
        "GenSelect": f"strategy=genselect strategy.n={n - 1 if n < 9 else n * 8 // 9}",
        "universal self-consistency": f"strategy=universal_self_consistency strategy.n={n - 1}",
        "DeepConf offline": f"strategy=deepconf_offline strategy.n={n} strategy.keep=0.5 strategy.window=8"
        " strategy.tail=8",
        "DeepConf online": f"strategy=deepconf_online strategy.warmup={max(2, n // 4)} strategy.budget={n}"
        " strategy.batch=4 strategy.window=8 strategy.every=4 strategy.keep=0.5",
        "adaptive consistency, Beta": f"strategy=adaptive_consistency strategy.most={n}",
        "adaptive consistency, Dirichlet": f"strategy=adaptive_consistency strategy.most={n} strategy/rule=dirichlet",
        "early-stopping self-consistency": f"strategy=early_stopping_sc strategy.most={n}",
        "short m@k": f"strategy=short_m_at_k strategy.k={n} strategy.m={(n + 1) // 2}",
        "Parallel-Probe": f"strategy=parallel_probe strategy.branches={n} strategy.every=12 strategy.warmup=1"
        " strategy.patience=2 strategy.stable=3 strategy.probe_tokens=8",
        "sequential": f"strategy=sequential strategy.n={n}",
        "sequential with revision": f"strategy=sequential_revision strategy.n={n}",
        "Self-MoA": f"strategy=self_moa strategy/schedule={halves}",
        "MoA": f"strategy=moa strategy.schedule.widths={layers} strategy.roles={proposers} {mixed} {logprobs}",
        "AggLM": f"strategy=agglm strategy/schedule=[{n - 1}]",
        "PDR, one summary": f"strategy=pdr strategy/schedule={wide}",
        "PDR, random k": "strategy=pdr strategy/compaction=conclusion strategy/views=random_subset"
        f" strategy/schedule={wide}",
        "RSA": f"strategy=rsa strategy.schedule.width={width} strategy.schedule.loops={width} strategy.views.k=2",
        "RSA, Markovian": f"strategy=rsa_markovian strategy.schedule.width={width} strategy.schedule.loops={width}"
        " strategy.views.k=2 strategy.compaction.n=16",
        "PaCoRe": f"strategy=pacore_{budget}",
        "PaCoRe, dedupe": f"strategy=pacore_{budget} strategy/compaction=dedupe",
        "PaCoRe, answers only": f"strategy=pacore_{budget} strategy/compaction=answer_only",
        "PaCoRe, digest": f"strategy=pacore_{budget} strategy/compaction=disagreement_digest",
        "PaCoRe, with counts": f"strategy=pacore_{budget} strategy/prompt=with_counts",
        "PaCoRe, quorum 3/4": f"{of} strategy/schedule=quorum",
        "PaCoRe, stop at agreement": f"{of} strategy/schedule=agreement_stop",
        "PaCoRe, skip if unanimous": f"{of} strategy/schedule=skip_agreed strategy.schedule.rule.share=1.0",
        "PaCoRe, width by disagreement": f"strategy=pacore strategy/schedule=by_disagreement"
        f" strategy.schedule.first={n // 2} strategy.schedule.most={n // 2}",
        "PaCoRe, allocated": f"strategy=allocated strategy.first={max(2, n // 4)} strategy.mean={n - 1}",
        "PaCoRe, rounds until agreed": f"strategy=pacore strategy/schedule=skip_agreed strategy.accumulate=true"
        f" strategy.schedule.of.widths=[{','.join(['4'] * max(1, n // 4))}]"
        " strategy.schedule.rule.least=4 strategy.schedule.rule.share=1.0",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=60, help="number of problems; %(default)s")
    parser.add_argument("--seed", type=int, default=20, help="seed of the problems; %(default)s")
    parser.add_argument("--budget", choices=BUDGETS, action="append", help="one of the three; default: all")
    parser.add_argument("--work", type=Path, default=Path("outputs/zoo"), help="folder for the runs; %(default)s")
    parser.add_argument("--to", type=Path, default=HERE / "results", help="folder for the tables; %(default)s")
    given = parser.parse_args()
    common = [*COMMON, f"problems.n={given.problems}", f"problems.seed={given.seed}"]
    work, found = given.work / f"{given.problems}-seed{given.seed}", []
    for budget in given.budget or BUDGETS:
        print(f"\nbudget {budget}: {BUDGETS[budget]} trajectories", flush=True)
        folders = run_all(strategies(budget), common, work / budget, shared=False)
        rows = write_table(folders, given.to / f"zoo_{budget}.csv", baseline="majority vote", seconds=True)
        found += [{**row, "name": f"{row['name']} ({budget})"} for row in rows]
    write_plot(found, given.to / "zoo.png", always=["majority vote", "PaCoRe ("])


if __name__ == "__main__":
    main()
