"""Compare finished runs, paired by problem and draw: `python -m pacore_lab compare OUT1 OUT2 ...`.

Prints the methods (each run's strategy and the baselines computed from its first rounds), and each method's difference
from one of them. Writes methods.csv, differences.csv, and one plot each against tokens, critical path and wall-clock.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from pacore_lab import analysis
from pacore_lab.analysis import Curve, Difference, Method, Row
from pacore_lab.config.command import one_line_errors
from pacore_lab.errors import ConfigError
from pacore_lab.results.disk import write
from pacore_lab.results.folder import read_run
from pacore_lab.results.grades import lines_of
from pacore_lab.showing import plots
from pacore_lab.showing.report import point_of
from pacore_lab.showing.terminal import columns, kilo, methods_table, missing, points
from pacore_lab.showing.text import safe


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """Methods in the order of the runs, their differences from the baseline, and the widest first rounds' votes."""

    methods: list[Method]
    rows: list[Row]
    baseline: Method
    differences: list[Difference]
    votes: Curve | None
    remarks: list[str]
    margin: float | None = None


def compare(
    outs: Sequence[Path], *, baseline: str | None = None, grades: str | None = None, margin: float | None = None
) -> Compared:
    """Read runs and compare their methods with `baseline`, by default the first run's strategy.

    grades: name of a regrading, a file in each run's grades/ folder. margin: see `Difference.verdict`; None for no
    verdicts. Raises ConfigError.
    """
    runs = [read_run(out, "problems") for out in outs]
    names = _names(outs, [versions["strategy"] for _, versions in runs])
    found = [analysis.methods_of(lines_of(out, grades), name) for out, name in zip(outs, names, strict=True)]
    methods = _distinct(found)
    ours = next(method for method in methods if method.name == names[0])
    if baseline is not None:
        known = {method.name: method for method in methods}
        if baseline not in known:
            raise ConfigError(f"--baseline {baseline!r} is not a method of these runs, which have: {', '.join(known)}")
        ours = known[baseline]
    ungraded = [method.name for method in methods if not method.graded]
    if ungraded:
        raise ConfigError(f"{ungraded[0]} has no graded episode; grade its run with python -m pacore_lab regrade first")
    try:
        differences = analysis.table([method for method in methods if method is not ours], ours)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    votes = _votes([lines_of(out, grades) for out in outs])
    return Compared(
        methods=methods,
        rows=[analysis.row_of(method) for method in methods],
        baseline=ours,
        differences=differences,
        votes=votes,
        remarks=[*_remarks(outs, runs, grades), *_reached(methods, set(names), votes), *_plans(methods, ours)],
        margin=margin,
    )


def _names(outs: Sequence[Path], strategies: Sequence[str]) -> list[str]:
    """Names each run after its strategy, and after its folder too if that is ambiguous."""
    twice = {name for name in strategies if strategies.count(name) > 1}
    return [f"{name} ({out.name})" if name in twice else name for out, name in zip(outs, strategies, strict=True)]


def _distinct(runs: Sequence[Sequence[Method]]) -> list[Method]:
    """Keeps one single-sample baseline, of the run with the widest first rounds, and votes of the same draws once."""
    widest = max(runs, key=lambda run: max(method.k or 0 for method in run))
    singles = {method.name for run in runs for method in run[:-1] if method.k == 1} - {run[-1].name for run in runs}
    methods: list[Method] = []
    for run in runs:
        for method in run:
            if method.name in singles and run is not widest:
                continue
            same_name = [other for other in methods if other.name == method.name]
            if same_name and all(
                np.array_equal(getattr(same_name[0], key), getattr(method, key), equal_nan=True)
                for key in ("scores", "ttc")
            ):
                continue
            methods.append(replace(method, name=f"{method.name} ({run[-1].name})") if same_name else method)
    return methods


def _votes(runs: Sequence[Iterable[dict[str, Any]]]) -> Curve | None:
    """maj@k in the widest first rounds, for k in powers of two; None if all are too narrow for a curve."""
    pools = [found for found in map(analysis.pools_of, runs) if len(found.problems)]
    widest = max(pools, key=lambda found: int(found.sizes.min()), default=None)
    if widest is None or not np.isfinite(widest.scores).any() or not (widest.classes >= 0).any():
        return None
    ks = [k for k in (2**power for power in range(12)) if k <= widest.sizes.min()]
    return analysis.curve(analysis.vote_methods(widest, ks)) if len(ks) > 1 else None


def _reached(methods: Sequence[Method], strategies: set[str], votes: Curve | None) -> list[str]:
    """What a vote would have to spend to reach each strategy's accuracy."""
    said = []
    for method in methods:
        accuracy, spent = analysis.row_of(method).accuracy, method.mean("ttc")
        if votes is None or method.name not in strategies or accuracy is None or spent is None:
            continue
        found = analysis.cost_to_reach(votes, accuracy)
        level, own = f"{method.name}'s {points(accuracy, '')} %", f"it spends {kilo(spent)}k"
        if found.cost is None:
            said.append(f"a vote of up to {kilo(float(votes.cost[-1]))}k tokens does not reach {level} ({own})")
        else:
            most = "at most " if found.at_most else ""
            ends = f"[{kilo(found.low)}, {'beyond' if found.high is None else kilo(found.high)}]"
            said.append(f"a vote reaches {level} with {most}{kilo(found.cost)}k tokens {ends} ({own})")
    return said


def _remarks(
    outs: Sequence[Path], runs: Sequence[tuple[dict[str, Any], dict[str, Any]]], grades: str | None
) -> list[str]:
    """Reasons why the runs differ in more than their strategies."""
    said = []
    first, versions = runs[0]
    for out, (settings, other) in zip(outs[1:], runs[1:], strict=True):
        if other["backend"]["fingerprint"] != versions["backend"]["fingerprint"]:
            said.append(f"{out} is of another model or engine than {outs[0]}: their draws differ")
        elif any(settings.get(key) != first.get(key) for key in ("seed", "pool")):
            said.append(f"{out} has another seed or pool than {outs[0]}: their draws differ")
        if grades is None and other["grader"] != versions["grader"]:
            said.append(
                f"{out} was graded by {other['grader']}, {outs[0]} by {versions['grader']}: regrade one of them"
            )
        if settings["problems"] != first["problems"]:
            said.append(f"{out} has other problem settings than {outs[0]}: only problems in both are paired")
    return said


def _plans(methods: Sequence[Method], baseline: Method) -> list[str]:
    """The smallest difference that this design can detect, and what it would take to detect one point."""
    said = []
    for method in methods:
        if method is baseline:
            continue
        try:
            spread = analysis.spread_of(method, baseline)
            seen = analysis.smallest_difference(spread)
            designs = analysis.designs(spread, 0.01)
        except ValueError:
            continue
        options = [f"{d.problems:,} × {d.repeats:g}" for d in designs if d.problems is not None]
        said.append(
            f"{method.name} − {baseline.name}: this design detects {points(seen, '')} points with 80 % power; "
            f"1 point would take {' or '.join(options) or 'more than any number of'} problems × repeats"
        )
    return said


def print_compared(found: Compared, console: Console | None = None) -> None:
    console = console or Console()
    console.print(methods_table(found.rows, width=40))
    console.print()
    exact = any(each.p_mcnemar is not None for each in found.differences)
    tests_shown = ("p", "p adj.", *(["McNemar"] if exact else []))
    judged = [] if found.margin is None else [f"within ±{100 * found.margin:g}"]
    table = columns("difference", ("points [95 %]", *tests_shown, "× tokens", *judged), width=40)
    for each in found.differences:
        interval = f"{points(each.mean)} [{points(each.low, '')}, {points(each.high, '')}]"
        ratio = "–" if each.ttc_ratio is None else f"{each.ttc_ratio:.2f}"
        tests = (_p(each.p), _p(each.p_adjusted), *([_p(each.p_mcnemar)] if exact else []))
        verdict = [] if found.margin is None else [each.verdict(found.margin)]
        table.add_row(*(Text(safe(cell)) for cell in (each.method, interval, *tests, ratio, *verdict)))
    console.print(Text(f"minus {safe(found.baseline.name)}, on the same problems and repeats:"))
    console.print(table)
    console.print(Text("p: sign flips over problems; adjusted: false discovery rate over this table", style="dim"))
    console.print()
    for sentence in (*missing(found.rows), *found.remarks):
        console.print(Text(safe(sentence)), soft_wrap=True)


def write_compared(found: Compared, folder: Path) -> None:
    """methods.csv, differences.csv, accuracy_vs_{ttc,critical_path,seconds}.{svg,png}, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    front = _front(found.rows)
    flat = [{k: v for k, v in asdict(row).items() if k not in ("versus", "groups")} for row in found.rows]
    write(folder / "methods.csv", _csv([{**row, "pareto": row["method"] in front} for row in flat]))
    write(folder / "differences.csv", _csv([_with_verdict(each, found.margin) for each in found.differences]))
    for cost in plots.AXES:
        rows = [(row, getattr(row, cost)) for row in found.rows]
        shown = [replace(point, cost=value) for row, value in rows if value and (point := point_of(row)) is not None]
        if not shown:
            continue
        places = analysis.pareto([point.cost for point in shown], [point.accuracy for point in shown])
        lines = [_line(found.votes)] if found.votes is not None and cost == "ttc" else []
        pictures = plots.draw(shown, cost, lines=lines, front=[shown[place] for place in places], whole=False)
        for kind, data in pictures.items():
            write(folder / f"accuracy_vs_{cost}.{kind}", data)


def _with_verdict(difference: Difference, margin: float | None) -> dict[str, Any]:
    judged = {} if margin is None else {"margin": margin, "verdict": difference.verdict(margin)}
    return asdict(difference) | judged


def _front(rows: Sequence[Row]) -> set[str]:
    known = [point for row in rows if (point := point_of(row)) is not None]
    places = analysis.pareto([point.cost for point in known], [point.accuracy for point in known])
    return {known[place].name for place in places}


def _line(curve: Curve) -> plots.Line:
    columns = (curve.cost, curve.accuracy, curve.band_low, curve.band_high)
    cost, accuracy, low, high = (column.tolist() for column in columns)
    return plots.Line(name="majority vote @k", cost=cost, accuracy=accuracy, low=low, high=high)


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: safe(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows
    )
    return buffer.getvalue().encode()


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def add_margin(parser: argparse.ArgumentParser) -> None:
    """--margin POINTS, read as a share of 1."""
    said = "say whether each difference is equal, not worse, better or worse, to within this many points"
    parser.add_argument("--margin", type=_margin, metavar="POINTS", help=said)


def _margin(text: str) -> float:
    try:
        points_given = float(text)
    except ValueError:
        points_given = math.nan
    if not 0 < points_given <= 100:
        raise ConfigError(f"--margin {text}: give points of accuracy, more than 0 and at most 100")
    return points_given / 100


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pacore_lab compare", description=__doc__)
    parser.add_argument("out", nargs="+", type=Path, help="folders of runs; one run is compared with its baselines")
    parser.add_argument("--baseline", help="name of the method to compare all others with; default: the first run's")
    parser.add_argument("--grades", help="name of a regrading (see regrade) to use instead of the runs' own")
    parser.add_argument("--to", type=Path, default=Path("outputs/compare"), help="folder for CSV files and plots")
    add_margin(parser)
    given = parser.parse_args()
    found = compare(given.out, baseline=given.baseline, grades=given.grades, margin=given.margin)
    print_compared(found)
    try:
        write_compared(found, given.to)
    except OSError as error:
        raise ConfigError(f"--to {given.to} cannot be written ({error.strerror}); name another folder") from None
    print(f"tables and plots  {given.to}")
