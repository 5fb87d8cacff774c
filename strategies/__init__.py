"""Strategies, and the parts they are made of.

The strategies: pacore, single, majority_vote, adaptive_consistency, short_m_at_k, deepconf, parallel_probe, best_of_n,
universal_self_consistency, genselect, allocated.

rounds      one round of PaCoRe: whom it asks, with which prompt, and when it ends; the answer after the last round
schedules   how wide each round is; adaptive: depending on the rounds so far; population: RSA's loops
views       which messages each trajectory is shown; prompts, aggregation_prompts: the prompt that shows them
orders      in which order a round's trajectories are compacted
compaction  how trajectories become messages
weights     how much a trajectory's vote counts; election: the vote; stopping: when the answers so far are enough
scorers     how good a trajectory is; verdicts: which trajectory a model prefers
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
