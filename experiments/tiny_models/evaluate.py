"""Does training on references make a coordinated reasoner? `python -m experiments.tiny_models.evaluate` (README.md).

Runs the lab on held-out searches for pacore-tiny, for rlvr-tiny from which it was trained, and for the control (the
same steps without references): schedules of growing width, majority votes, sequential rounds, and no compaction.
Prints paired differences and writes tables and figures. Trajectories sampled before are taken from the store.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.tiny_models.figures import Family, draw
from pacore_lab import analysis
from pacore_lab.analysis import Difference, Method
from pacore_lab.config.calling import run
from pacore_lab.config.command import one_line_errors
from pacore_lab.results.disk import read_lines

HERE = Path(__file__).parent
WIDTHS = {
    "pacore_tiny": ("[1]", "[2]", "[4]", "[8]", "[16]", "[32]", "[32,4]"),
    "rlvr_tiny": ("[1]", "[4]", "[16]", "[32,4]"),
    "control_tiny": ("[1]", "[4]", "[16]", "[32,4]"),
}
SEQUENTIAL = (2, 4, 8, 16)
WHOLE = (1, 4, 16)
VOTES = (1, 2, 4, 6, 8, 16, 18, 32, 38, 48, 64)
NAMES = {"[4]": "low", "[16]": "medium", "[32,4]": "high"}


@dataclass(frozen=True, kw_only=True)
class Study:
    """problems, repeats: in every run. pool: first-round trajectories per problem, from which each repeat draws."""

    problems: int
    repeats: int
    pool: int
    out: Path

    def run(self, model: str, name: str, *words: str) -> Method:
        """The strategy's results in a run, which is started, resumed, or read if it is finished."""
        out = self.out / f"{model}-{name}"
        print(f"{model} {name}", flush=True)
        run(
            f"problems.n={self.problems}",
            *words,
            model=model,
            problems="search",
            repeats=self.repeats,
            pool=self.pool,
            concurrency=768,
            out=out,
            store=f"{self.out / model}.sqlite",
        )
        return analysis.methods_of(read_lines(out / "results.jsonl"), f"{model} {name}")[-1]

    def of(self, model: str) -> dict[str, dict[str, Method]]:
        """All runs of a model: schedules ("single" is one trajectory alone), and votes or variants."""
        schedules = {"single": self.run(model, "single", "strategy=single")}
        for widths in WIDTHS[model]:
            name = f"pacore{_digits(widths)}"
            schedules[widths] = self.run(model, name, "strategy=pacore_low", f"strategy.schedule.widths={widths}")
        found = {"schedules": schedules}
        if model == "rlvr_tiny":
            found["votes"] = {
                str(k): self.run(model, f"vote{k}", "strategy=majority_vote", f"strategy.k={k}") for k in VOTES
            }
            order = ("strategy=pacore_low", "strategy.prompt._target_=experiments.tiny_models.mix.told")
            found["told"] = {
                widths: self.run(model, f"told{_digits(widths)}", *order, f"strategy.schedule.widths={widths}")
                for widths in NAMES
            }
        if model == "pacore_tiny":
            found["sequential"] = {
                str(n): self.run(model, f"sequential{n}", "strategy=sequential", f"strategy.n={n}") for n in SEQUENTIAL
            }
            low = ("strategy=pacore_low", "strategy/compaction=full")
            found["whole"] = {
                str(k): self.run(model, f"whole{k}", *low, f"strategy.schedule.widths=[{k}]") for k in WHOLE
            }
        return found


def _digits(widths: str) -> str:
    return widths.strip("[]").replace(",", "_")


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200, help="%(default)s")
    parser.add_argument("--repeats", type=int, default=8, help="%(default)s")
    parser.add_argument("--pool", type=int, default=64, help="first-round trajectories per problem; %(default)s")
    parser.add_argument("--out", type=Path, default=HERE / "work" / "evaluation", help="folder of the runs")
    parser.add_argument("--to", type=Path, default=HERE / "results", help="folder of tables and figures")
    parser.add_argument("--only", choices=tuple(WIDTHS), help="sample for one model and stop, to run two at once")
    given = parser.parse_args()
    study = Study(problems=given.problems, repeats=given.repeats, pool=given.pool, out=given.out)
    found = {model: study.of(model) for model in WIDTHS if given.only in (None, model)}
    if given.only:
        return
    schedules = {model: runs["schedules"] for model, runs in found.items()}
    votes, ours = list(found["rlvr_tiny"]["votes"].values()), schedules["pacore_tiny"]
    given.to.mkdir(parents=True, exist_ok=True)
    every = [method for runs in found.values() for methods in runs.values() for method in methods.values()]
    differences = _differences(schedules, votes)
    _write(given.to, every, differences)
    _print(every, differences)
    curves = [Family(name=model.replace("_", "-"), methods=list(found.values())) for model, found in schedules.items()]
    told = Family(
        name="rlvr-tiny, told to use references", methods=list(found["rlvr_tiny"]["told"].values()), dashed=True
    )
    vote = Family(name="majority vote, rlvr-tiny", methods=votes, dashed=True)
    draw(given.to / "figure1.png", [*curves, vote, told])
    parallel = Family(name="parallel [N]", methods=[ours[widths] for widths in ("[1]", "[2]", "[4]", "[8]", "[16]")])
    for name, key in (("sequential [1] × N", "sequential"), ("[N] without compaction", "whole")):
        other = Family(name=name, methods=list(found["pacore_tiny"][key].values()), dashed=True)
        draw(given.to / f"figure4_{key}.png", [parallel, other])


def _differences(schedules: dict[str, dict[str, Method]], votes: Sequence[Method]) -> list[Difference]:
    """The study's claims, each as a paired difference over problems."""
    pairs: list[tuple[Method, Method]] = []
    for model, found in schedules.items():
        pairs += [(found[widths], found["single"]) for widths in NAMES]
        if model == "pacore_tiny":
            pairs += [(found["[16]"], found["[4]"]), (found["[32,4]"], found["[16]"])]
    for widths in NAMES:
        ours = schedules["pacore_tiny"][widths]
        pairs.append((ours, next(vote for vote in votes if (vote.mean("ttc") or 0) >= (ours.mean("ttc") or 0))))
        pairs += [(ours, schedules[model][widths]) for model in ("rlvr_tiny", "control_tiny")]
    return [analysis.paired(method, baseline) for method, baseline in pairs]


def _write(folder: Path, methods: Sequence[Method], differences: Sequence[Difference]) -> None:
    rows = [
        (row.method, row.accuracy, row.low, row.high, row.ttc, row.critical_path, row.problems, row.graded)
        for row in map(analysis.row_of, methods)
    ]
    _table(folder / "methods.csv", "method,accuracy,low,high,ttc,critical_path,problems,graded", rows)
    pairs = [(d.method, d.baseline, d.mean, d.low, d.high, d.ttc_ratio, d.problems) for d in differences]
    _table(folder / "differences.csv", "method,baseline,difference,low,high,ttc_ratio,problems", pairs)


def _table(path: Path, head: str, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head.split(","))
        writer.writerows([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row] for row in rows)


def _print(methods: Sequence[Method], differences: Sequence[Difference]) -> None:
    console = Console(width=120)
    table = Table("method", "accuracy % [95 %]", "tokens", box=None)
    for row in map(analysis.row_of, methods):
        assert row.accuracy is not None
        assert row.low is not None
        assert row.high is not None
        table.add_row(
            row.method, f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]", f"{row.ttc:.0f}"
        )
    console.print(table)
    for each in differences:
        console.print(
            f"{each.method} − {each.baseline}: {100 * each.mean:+.1f} points [{100 * each.low:.1f}, "
            f"{100 * each.high:.1f}] at {each.ttc_ratio:.2f} × the tokens"
        )


if __name__ == "__main__":
    main()
