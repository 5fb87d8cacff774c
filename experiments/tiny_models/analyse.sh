#!/usr/bin/env bash
# After train.sh: what changed during the training, and what pacore-tiny does with its references (README.md).
set -euo pipefail
cd "$(dirname "$0")/../.."
here=experiments/tiny_models
work=${WORK:-$here/work}

python -m experiments.tiny_models.progress --work "$work"
python -m pacore_lab curves pacore-tiny="$work/pacore/log.jsonl" control-tiny="$work/control/log.jsonl" \
  --window 40 --accuracy "$here/results/accuracy.json" --to "$here/results/training.png"

# messages in an order drawn by lot, so that a place in the list means nothing by itself
python run.py problems=search problems.n=200 problems.seed=6 strategy=pacore_medium strategy/order=shuffle \
  out="$work/shuffled" store="$work/shuffled.sqlite"
python -m pacore_lab copying "$work/shuffled" --to "$here/results/copying.png"
python -m pacore_lab attention "$work/shuffled" --model "$here/pacore-tiny" --to "$here/results/attention.png"
