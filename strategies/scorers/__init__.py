"""How good a trajectory is, for `strategies.best_of_n`."""

from strategies.scorers.confidence import Likelihood, SelfCertainty
from strategies.scorers.marks import Judge
from strategies.scorers.process_reward import ProcessReward
from strategies.scorers.score import Score, Scorer

__all__ = ["Judge", "Likelihood", "ProcessReward", "Score", "Scorer", "SelfCertainty"]
