"""C(Omega): what of a round's trajectories reaches the next (paper section 2.1, equation 2)."""

from strategies.compaction.answer_only import AnswerOnly
from strategies.compaction.last_tokens import LastTokens
from strategies.compaction.random_k import RandomK
from strategies.compaction.whole import Conclusion, Full

__all__ = ["AnswerOnly", "Conclusion", "Full", "LastTokens", "RandomK"]
