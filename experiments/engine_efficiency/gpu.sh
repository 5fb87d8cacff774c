#!/usr/bin/env bash
# Engine efficiency on one GPU with Qwen3-8B's shape and random weights: gpu.sh hf|vllm|sglang [overrides]. NOT RUN YET.
# hf needs the core only; vllm the lab in vLLM's environment; sglang backend.python=PATH or SGLang's environment.
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=$1 shape=outputs/qwen3-8b-shape dummy=(backend.load_format=dummy)
[ "$engine" = hf ] && shape=outputs/qwen3-8b-random dummy=()
if [ ! -f "$shape/config.json" ]; then
  python -m experiments.engine_efficiency.shape "$shape" $([ "$engine" = hf ] && echo --weights)
fi
python -m experiments.engine_efficiency.measure strategy=pacore_high problems.n=16 repeats=3 concurrency=1024 \
  backend="$engine" "${dummy[@]}" model=custom model.name=qwen3-8b-shape model.path="$shape" model.dtype=bfloat16 \
  model.max_tokens=2000 "${@:2}"
