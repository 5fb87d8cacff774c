"""C(Omega): how a round's trajectories become messages for the next (paper section 2.1, equation 2)."""

from strategies.compaction.answer_only import AnswerOnly
from strategies.compaction.answer_steps import AnswerSteps
from strategies.compaction.dedupe import Dedupe
from strategies.compaction.disagreement_digest import DisagreementDigest
from strategies.compaction.global_summary import GlobalSummary
from strategies.compaction.last_tokens import LastTokens
from strategies.compaction.llm_summary import LLMSummary
from strategies.compaction.random_k import RandomK
from strategies.compaction.top_k import TopK
from strategies.compaction.whole import Conclusion, Full

__all__ = [
    "AnswerOnly",
    "AnswerSteps",
    "Conclusion",
    "Dedupe",
    "DisagreementDigest",
    "Full",
    "GlobalSummary",
    "LLMSummary",
    "LastTokens",
    "RandomK",
    "TopK",
]
