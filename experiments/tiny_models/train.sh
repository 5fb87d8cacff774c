#!/usr/bin/env bash
# The whole training, from nothing to pacore-tiny and its control (README.md). Repeated after a stop, it goes on where it
# was; WORK names the folder for what is not shipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=experiments/tiny_models
work=${WORK:-$here/work}
ppo() {  # a search takes 34 tokens at most: there is room for one box, not for two
  python -m pacore_lab ppo --max-tokens 40 --responses 16 --lr 8e-5 --critic-lr 1e-3 --critic-warmup 10 \
    --save-every 20 "$@"
}
ship() { python -m experiments.tiny_models.ship "$@"; }

python -m experiments.tiny_models.pretrain --work "$work/pretraining" --out "$work/base"

# rlvr-tiny: rewards on bare problems, as long as they bring something
python run.py model=custom model.name=base model.path="$work/base" problems=search problems.split=train problems.seed=1 \
  problems.n=800 strategy=single out="$work/bare" store="$work/bare.sqlite"
python -m pacore_lab pools "$work/bare" --messages 1 --to "$work/bare.parquet"
ppo --model "$work/base" --records "$work/bare.parquet" --m-min 0 --m-max 0 --steps 50 --out "$work/rlvr"
ship "$work/rlvr" "$here/rlvr-tiny"
cp "$work/base/training.json" "$here/rlvr-tiny/pretraining.json"

# its messages, 24 to each of 1,000 other training problems; not filtered, for these are all equally hard (README.md)
python run.py model=rlvr_tiny problems=search problems.split=train problems.seed=2 problems.n=1000 \
  strategy=majority_vote strategy.k=24 out="$work/pool" store="$work/pool.sqlite"
python -m pacore_lab pools "$work/pool" --messages 24 --to "$work/pool.parquet"

# pacore-tiny: the same rewards under up to 24 of these messages; the control: as many steps without them
ppo --model "$here/rlvr-tiny" --records "$work/pool.parquet" --m-min 0 --m-max 24 --steps 120 --snapshot-every 20 \
  --out "$work/pacore"
ship "$work/pacore" "$here/pacore-tiny"
ppo --model "$here/rlvr-tiny" --records "$work/pool.parquet" --m-min 0 --m-max 0 --steps 120 --snapshot-every 20 \
  --out "$work/control"
ship "$work/control" "$here/control-tiny"
