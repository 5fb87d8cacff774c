"""From the lines of results.jsonl to the numbers a researcher reads: accuracy, compute, paired differences.

methods      lines to arrays: `Method`, one method's scores and costs by problem and repeat
summary      a run's table: `summarise`
loading      a finished run, read back: `load`
counts       how much was drawn and what went wrong: `tally`
compactions  how much of a round's trajectories its messages kept
agreement    which of its messages a synthesis agrees with
intervals    95 % intervals and standard errors
ratios       95 % intervals of rates pooled over clusters
at_k         votes and pass@k over pools of samples
bootstrap    nested bootstrap of votes over shared pools: problems, pool members, redraws
paired       paired differences and tests
planning     how many problems and repeats it takes to see a difference
frontier     accuracy against compute, the cost of reaching an accuracy, Pareto fronts

Random numbers come from a `seed` argument, 0 by default.
"""

from pacore_lab.analysis.at_k import Pools, Votes, majority, pass_at_k, pass_rates, pools_of, vote_methods
from pacore_lab.analysis.bootstrap import Nested, nested
from pacore_lab.analysis.compactions import Compacted, Compactions, compactions
from pacore_lab.analysis.counts import Tally, tally
from pacore_lab.analysis.frontier import Curve, Reached, cost_to_reach, curve, pareto
from pacore_lab.analysis.intervals import (
    StandardErrors,
    accuracy_interval,
    difference_interval,
    standard_errors,
    stratified_interval,
)
from pacore_lab.analysis.methods import Line, Method, methods_of
from pacore_lab.analysis.paired import Difference, paired, pairs, sign_flip, table
from pacore_lab.analysis.planning import (
    Design,
    Spread,
    designs,
    power,
    problems_needed,
    smallest_difference,
    spread_of,
)
from pacore_lab.analysis.summary import Group, Row, calibration_error, row_of, summarise

__all__ = [
    "Compacted",
    "Compactions",
    "Curve",
    "Design",
    "Difference",
    "Group",
    "Line",
    "Method",
    "Nested",
    "Pools",
    "Reached",
    "Row",
    "Spread",
    "StandardErrors",
    "Tally",
    "Votes",
    "accuracy_interval",
    "calibration_error",
    "compactions",
    "cost_to_reach",
    "curve",
    "designs",
    "difference_interval",
    "majority",
    "methods_of",
    "nested",
    "paired",
    "pairs",
    "pareto",
    "pass_at_k",
    "pass_rates",
    "pools_of",
    "power",
    "problems_needed",
    "row_of",
    "sign_flip",
    "smallest_difference",
    "spread_of",
    "standard_errors",
    "stratified_interval",
    "summarise",
    "table",
    "tally",
    "vote_methods",
]
