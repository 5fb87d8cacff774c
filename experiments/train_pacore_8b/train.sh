#!/usr/bin/env bash
# Train, or go on where OUT stands: train.sh CHECKPOINT RECORDS OUT [verl overrides]. In verl's environment (PYTHON names
# its interpreter). One node of 8 GPUs, or the Ray cluster that RAY_ADDRESS names. NOT RUN on GPUs by us.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "train.sh CHECKPOINT RECORDS OUT [verl overrides]" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
checkpoint=$(realpath "$1") records=$(realpath "$2") out=$(realpath -m "$3")
# verl empties its metrics file at a start, so that each start needs one of its own
metrics=$out/metrics/$(date -u +%Y%m%dT%H%M%S).jsonl
mkdir -p "$out/metrics"
exec "${PYTHON:-python}" -m verl.trainer.main_ppo --config-path "$here" --config-name recipe \
  actor_rollout_ref.model.path="'$checkpoint'" data.train_files="'$records'" trainer.default_local_dir="'$out'" \
  +ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH="'$metrics'" "${@:4}"
