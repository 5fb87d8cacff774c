"""The synthesis environment under verl (github.com/verl-project/verl, 0.9.1): PPO at the paper's scale.

verl loads `dataset` and `manager`, which import it; everything else here runs in the lab's own environment.
`experiments/train_pacore_8b` has the recipe and the commands.
"""
