"""From the lines of results.jsonl to the numbers a researcher reads: accuracy, compute, paired differences.

The unit of inference is the problem (Miller, arXiv 2411.00640): repeats of one problem are averaged first, intervals
are over problems, and methods are compared by their differences on the same problems and draws. Both intervals go
beyond that paper's normal ones, which are too narrow for the 30 problems of an AIME and near 0 and 1; their coverage is
simulated in `tests/test_analysis.py`. Nothing graded is None, never 0.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Line: TypeAlias = Mapping[str, Any]
"""One parsed line of results.jsonl: one episode, that is one (problem, repeat)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Accuracy of `method` minus that of `baseline`, over the (problem, repeat) pairs where both were graded.

    mean, low, high: in [-1, 1], 95 % interval over problems. ttc_ratio: tokens of the method per token of the baseline.
    """

    method: str
    baseline: str
    problems: int
    mean: float
    low: float
    high: float
    ttc_ratio: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One method of a run.

    episodes = graded + ungraded + failed. accuracy: mean over problems of the mean over their graded repeats, in
    [0, 1], with its 95 % interval [low, high]; None where nothing was graded. ttc, critical_path: tokens per episode
    that did not fail. seconds: wall-clock per such episode, None for the baselines, which are read off the same
    trajectories. k: trajectories of a baseline, where that is one number.
    """

    method: str
    problems: int
    episodes: int
    graded: int
    ungraded: int
    failed: int
    accuracy: float | None
    low: float | None
    high: float | None
    ttc: float | None
    critical_path: float | None
    seconds: float | None = None
    k: int | None = None
    versus: tuple[Difference, ...] = ()


def summarise(lines: Iterable[Line], strategy: str) -> list[Row]:
    """The single-sample and majority-vote baselines, then the strategy with its difference to each of them.

    Streams: of each line only numbers are kept. A baseline that did in every episode what the strategy did (same score,
    same tokens) is left out: it is the strategy.
    """
    ours = _Method(strategy)
    baselines = {"single": _Baseline("single sample"), "majority_vote": _Baseline("majority vote @")}
    for line in lines:
        problem, failed = line["request_id"], line["error"] is not None
        score = None if failed else line["grade"]["score"]
        ours.add(problem, score, {**line["tokens"], "seconds": line["seconds"]}, failed=failed)
        for key, baseline in baselines.items():
            entry = line["baselines"].get(key)
            if entry is not None:
                baseline.add_entry(problem, entry, score, None if failed else line["tokens"])
            elif failed:
                baseline.add(problem, None, {}, failed=True)
    shown = [b for b in baselines.values() if b.differs]
    differences = tuple(b.difference(ours) for b in shown if b.leads)
    return [*(b.row(k=b.k) for b in shown), ours.row(differences)]


@dataclass
class Tally:
    """How many trajectories were drawn; what went wrong, by kind ("episode", "trajectory", "ungraded") and reason."""

    episodes: int = 0
    sampled: int = 0
    reused: int = 0
    truncated: int = 0
    uncounted: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, line: Line) -> None:
        self.episodes += 1
        self.sampled += line["tokens"]["sampled"]
        self.reused += line["tokens"]["reused"]
        if line["error"] is not None:
            self._blame("episode", line["error"])
        elif line["grade"]["score"] is None and line["ground_truth"] is not None:
            self._blame("ungraded", line["grade"]["reason"])
        for trajectory in (t for round_ in line["trajectories"] for t in round_):
            self.truncated += trajectory["finish_reason"] == "length"
            self.uncounted += trajectory["error"] is None and not trajectory["counted"]
            if trajectory["error"] not in (None, "aborted"):  # a strategy aborts on purpose; that is not a fault
                self._blame("trajectory", trajectory["error"])

    def _blame(self, kind: str, reason: str) -> None:
        first = (reason.strip().splitlines() or ["no reason given"])[0]
        key = (kind, first if len(first) <= 120 else first[:119] + "…")
        if key not in self.reasons and len(self.reasons) >= 500:  # reasons that name every request: keep memory flat
            key = (kind, "other reasons")
        self.reasons[key] += 1


def tally(lines: Iterable[Line]) -> Tally:
    """Counts over all lines; streams."""
    counts = Tally()
    for line in lines:
        counts.add(line)
    return counts


def accuracy_interval(problem_means: Sequence[float], repeats: float) -> tuple[float, float]:
    """95 % interval of an accuracy, clustered by problem: Wilson's at the effective sample size.

    problem_means: each in [0, 1]. repeats: graded repeats per problem, on average.
    The clustered standard error says how many independent 0/1 scores the data are worth, p(1 - p) / se^2, about the
    number of problems at least and that of scores at most; Wilson's interval with that n and Student's t replaces the
    symmetric one (Dean & Pagano, J. Surv. Stat. Methodol. 3, 2015; Franco et al., ibid. 7, 2019). So it stays inside
    [0, 1], has a width where all scores agree, and becomes Miller's interval as problems grow.
    """
    n, p, t = len(problem_means), _mean(problem_means), _t(len(problem_means))
    effective = float(n)
    if n > 1 and 0 < p < 1:
        squares = sum((x - p) ** 2 for x in problem_means) / (n - 1) / n
        effective = min(p * (1 - p) / squares if squares else math.inf, n * max(repeats, 1.0))
    centre = (p + t * t / (2 * effective)) / (1 + t * t / effective)
    half = t / (1 + t * t / effective) * math.sqrt(p * (1 - p) / effective + t * t / (4 * effective**2))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # p is inside, but for rounding


def difference_interval(problem_differences: Sequence[float], repeats: float) -> tuple[float, float]:
    """95 % interval of a mean paired difference over problems, each difference in [-1, 1].

    Student's t on the differences and two pseudo-problems, one won and one lost by 1 / sqrt(repeats). With one repeat
    of 0/1 scores that is the adjusted Wald interval for paired proportions (Bonett & Price, Br. J. Math. Stat. Psychol.
    65, 2012). The plain t-interval is [0, 0], certainty, where a handful of problems happen to agree.
    """
    n, pseudo = len(problem_differences), 1 / math.sqrt(max(repeats, 1.0))
    values = [*problem_differences, pseudo, -pseudo]
    centre = _mean(values)
    error = math.sqrt(sum((x - centre) ** 2 for x in values)) / len(values)
    return max(-1.0, centre - _t(n) * error), min(1.0, centre + _t(n) * error)


class _Method:
    """Running numbers of one method: score lists by problem, sums of tokens."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: set[str] = set()
        self.scores: defaultdict[str, list[float]] = defaultdict(list)
        self.ungraded = self.failed = self.finished = 0
        self.sums: dict[str, float] = {}  # tokens and seconds, over the episodes that finished

    def add(self, problem: str, score: float | None, costs: Line, *, failed: bool = False) -> None:
        self.problems.add(problem)
        if failed:
            self.failed += 1
            return
        self.finished += 1
        for key in {"ttc", "critical_path", "seconds"} & costs.keys():
            self.sums[key] = self.sums.get(key, 0.0) + costs[key]
        if score is None:
            self.ungraded += 1
        else:
            self.scores[problem].append(score)

    def mean(self, key: str) -> float | None:
        return self.sums[key] / self.finished if self.finished and key in self.sums else None

    def row(self, versus: tuple[Difference, ...] = (), k: int | None = None) -> Row:
        graded = sum(map(len, self.scores.values()))
        means = [_mean(scores) for scores in self.scores.values()]
        low, high = accuracy_interval(means, graded / len(means)) if means else (None, None)
        return Row(
            method=self.name,
            problems=len(self.problems),
            episodes=self.finished + self.failed,
            graded=graded,
            ungraded=self.ungraded,
            failed=self.failed,
            accuracy=_mean(means) if means else None,
            low=low,
            high=high,
            ttc=self.mean("ttc"),
            critical_path=self.mean("critical_path"),
            seconds=self.mean("seconds"),
            k=k,
            versus=versus,
        )


class _Baseline(_Method):
    """A method read off the strategy's first round, and the strategy's lead over it by problem."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label
        self.ks: set[int] = set()
        self.leads: defaultdict[str, list[float]] = defaultdict(list)
        self.differs = False

    @property
    def k(self) -> int | None:
        return next(iter(self.ks)) if len(self.ks) == 1 else None

    def add_entry(self, problem: str, entry: Line, score: float | None, tokens: Line | None) -> None:
        """`score`, `tokens`: the strategy's on the same draws; None where its episode was not graded, or failed."""
        self.add(problem, entry["score"], entry)
        self.ks.add(entry["k"])
        if self.label.endswith("@"):
            self.name = self.label + "–".join(map(str, sorted({min(self.ks), max(self.ks)})))
        if score is not None and entry["score"] is not None:
            self.leads[problem].append(score - entry["score"])
        same_cost = tokens is None or math.isclose(entry["ttc"], tokens["ttc"])
        self.differs |= entry["score"] != score or not same_cost

    def difference(self, ours: _Method) -> Difference:
        leads = [_mean(values) for values in self.leads.values()]
        n, mean = len(leads), _mean(leads)
        low, high = difference_interval(leads, sum(map(len, self.leads.values())) / n)
        mine, theirs = ours.mean("ttc"), self.mean("ttc")
        ratio = mine / theirs if mine is not None and theirs else None
        return Difference(
            method=ours.name, baseline=self.name, problems=n, mean=mean, low=low, high=high, ttc_ratio=ratio
        )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _t(problems: int) -> float:
    from scipy import stats  # a second of every start, were it imported above

    return float(stats.t.ppf(0.975, max(problems - 1, 1)))
