"""Many runs on the same problems from one command, each resumable, and one table of them all."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pacore_lab import analysis
from pacore_lab.analysis import Method
from pacore_lab.config.calling import run
from pacore_lab.results.disk import read_lines
from pacore_lab.showing import plots
from pacore_lab.showing.terminal import columns, kilo, percent, points

MARGIN = 0.01


def run_all(table: Mapping[str, str], common: Sequence[str], work: Path, *, shared: bool) -> dict[str, Path]:
    """Run what each name stands for (words as on run.py's command line), unless it is finished; return the run folders.

    shared: one store for all, so first rounds are sampled once. Otherwise each run samples the same draws again, so its
    wall-clock is its own.
    """
    folders = {}
    work.mkdir(parents=True, exist_ok=True)
    for name, words in table.items():
        folder = folders[name] = work / re.sub(r"[^a-z0-9]+", "-", name.lower())
        if (folder / "summary.json").exists():
            continue
        store = work / "store.sqlite" if shared else folder / "store.sqlite"
        with (work / "log").open("a") as log, contextlib.redirect_stdout(log):
            run(*common, *words.split(), out=folder, store=store)
    return folders


def methods(folders: Mapping[str, Path]) -> dict[str, Method]:
    """Each run's scores and costs."""
    return {name: analysis.methods_of(read_lines(f / "results.jsonl"), name)[-1] for name, f in folders.items()}


def write_plot(rows: Sequence[Mapping[str, Any]], file: Path, *, always: Sequence[str] = ()) -> None:
    """Plot accuracy against tokens (PNG) for the Pareto front and the names that start with one of `always`."""
    points = [
        plots.Point(name=row["name"], cost=row["ttc"], accuracy=row["accuracy"], low=row["low"], high=row["high"])
        for row in rows
        if row["accuracy"] is not None
    ]
    front = [points[place] for place in analysis.pareto([p.cost for p in points], [p.accuracy for p in points])]
    shown = [point for point in points if point in front or point.name.startswith(tuple(always))]
    file.write_bytes(plots.draw(shown, front=front, whole=False)["png"])


def write_table(
    folders: Mapping[str, Path], file: Path, *, baseline: str | None = None, seconds: bool = False
) -> list[dict[str, Any]]:
    """Print and write (CSV) accuracy with its interval, tokens, aborted trajectories per episode and maybe seconds.

    baseline: the run that the others are paired with. seconds: wall-clock of each whole run.
    """
    found = methods(folders)
    rows = []
    for name, method in found.items():
        row, summary = analysis.row_of(method), json.loads((folders[name] / "summary.json").read_text())
        lines = list(read_lines(folders[name] / "results.jsonl"))
        versus = analysis.paired(method, found[baseline]) if baseline and name != baseline else None
        rows.append(
            {
                "name": name,
                "graded": row.graded,
                "accuracy": row.accuracy,
                "low": row.low,
                "high": row.high,
                "ttc": row.ttc,
                "critical_path": row.critical_path,
                "aborted": sum(line["tokens"]["aborted"] for line in lines) / len(lines),
                "notes": sum(len(line["notes"]) for line in lines) / len(lines),
                "seconds": summary["seconds"] if seconds else None,
                "difference": versus and versus.mean,
                "difference_low": versus and versus.low,
                "difference_high": versus and versus.high,
                "ttc_ratio": versus and versus.ttc_ratio,
                "within_1_point": versus and versus.verdict(MARGIN),
            }
        )
        if row.graded < row.episodes:
            print(f"{name}: {row.episodes - row.graded} of {row.episodes} episodes have no grade")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    heads = ["accuracy % [95 %]", "TTC k", "path k", "aborted"]
    heads += [*(["run s"] if seconds else []), *([f"− {baseline}", "× tokens", "within ±1"] if baseline else [])]
    shown = columns("strategy", heads, width=44)
    for each, method in zip(rows, found.values(), strict=True):
        row = analysis.row_of(method)
        cells = [str(each["name"]), percent(row), kilo(row.ttc), kilo(row.critical_path), f"{each['aborted']:.1f}"]
        if seconds:
            cells.append(f"{each['seconds']:.0f}")
        if baseline and each["difference"] is not None:
            low, high = points(each["difference_low"], ""), points(each["difference_high"], "")
            cells += [
                f"{points(each['difference'])} [{low}, {high}]",
                f"{each['ttc_ratio']:.2f}",
                each["within_1_point"],
            ]
        shown.add_row(*map(Text, cells), *([""] * (len(heads) + 1 - len(cells))))
    Console(width=140).print(shown)
    return rows
