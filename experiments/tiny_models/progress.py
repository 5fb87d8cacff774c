"""Accuracy on held-out searches over the training: `python -m experiments.tiny_models.progress` (README.md).

Runs one PaCoRe round of 16 with each snapshot that train.sh leaves, and with the model it began from; writes
accuracy.json for `pacore_lab.training.curves --accuracy`.
"""

import argparse
from pathlib import Path

from pacore_lab import analysis
from pacore_lab.config.calling import run
from pacore_lab.config.command import one_line_errors
from pacore_lab.results.disk import read_lines, write_json

HERE = Path(__file__).parent


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="train.sh's work folder")
    parser.add_argument("--to", type=Path, default=HERE / "results" / "accuracy.json")
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for name in ("pacore", "control"):
        snapshots = {int(path.name.removeprefix("policy-")): path for path in (given.work / name).glob("policy-*")}
        points = found[f"{name}-tiny, [16]"] = []
        for step, folder in sorted({0: HERE / "rlvr-tiny", **snapshots}.items()):
            out = given.work / "progress" / f"{name}-{step}"
            run(
                "model=custom",
                f"model.name=step{step}",
                f"model.path={folder}",
                "problems.n=100",
                "problems.seed=5",
                strategy="pacore_medium",
                out=out,
                store=given.work / "progress.sqlite",
            )
            row = analysis.row_of(analysis.methods_of(read_lines(out / "results.jsonl"), name)[-1])
            percents = {"mean": row.accuracy, "low": row.low, "high": row.high}
            points.append({"step": step} | {key: 100 * share for key, share in percents.items() if share is not None})
    write_json(given.to, found)


if __name__ == "__main__":
    main()
