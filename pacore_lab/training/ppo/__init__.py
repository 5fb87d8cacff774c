"""PPO with a critic for small models, on one machine: TRL's loop, with rollouts and training that share each prompt."""

from pacore_lab.training.ppo.rollout import Rollout as Rollout
from pacore_lab.training.ppo.rollout import sample as sample
from pacore_lab.training.ppo.settings import Settings as Settings
from pacore_lab.training.ppo.training import train as train

__all__ = ["Rollout", "Settings", "sample", "train"]
