"""What decides: whole strategies and their parts.

rounds      one round of PaCoRe: who is asked with which prompt, and when it is enough
schedules   how wide each round is; adaptive and population hold those that look at the rounds so far, or never end
compaction  what of a round's trajectories reaches the next
orders      in which order; views: which of it each trajectory is shown; prompts: in which words
weights     what a trajectory's vote counts; scorers: what a trajectory is worth; stopping: when answers are enough
"""

from strategies.adaptive import AgreementStop, ByDisagreement, Quorum, SkipAgreed, TokenBudget
from strategies.adaptive_consistency import AdaptiveVote
from strategies.allocated import Allocated
from strategies.best_of_n import BestOfN
from strategies.deepconf import DeepConfOffline, DeepConfOnline
from strategies.genselect import GenSelect
from strategies.majority_vote import MajorityVote
from strategies.pacore import PaCoRe, sequential
from strategies.parallel_probe import ParallelProbe
from strategies.population import Population
from strategies.schedules import Fixed
from strategies.short_m_at_k import ShortMAtK
from strategies.single import Single
from strategies.universal_self_consistency import UniversalSelfConsistency

__all__ = [
    "AdaptiveVote",
    "AgreementStop",
    "Allocated",
    "BestOfN",
    "ByDisagreement",
    "DeepConfOffline",
    "DeepConfOnline",
    "Fixed",
    "GenSelect",
    "MajorityVote",
    "PaCoRe",
    "ParallelProbe",
    "Population",
    "Quorum",
    "ShortMAtK",
    "Single",
    "SkipAgreed",
    "TokenBudget",
    "UniversalSelfConsistency",
    "sequential",
]
