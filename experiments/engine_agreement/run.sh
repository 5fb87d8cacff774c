#!/usr/bin/env bash
# The same problems and seeds on transformers, vLLM and SGLang, on a CPU: run.sh [OUT]
# (the environments come from `make .engines/vllm/ready .engines/sglang/ready`; vLLM's has the lab in it, too).
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-outputs/engine_agreement} sglang_cpu=$PWD/tests/engines/sglang_cpu
vllm=${PACORE_VLLM:-.engines/vllm} sglang=${PACORE_SGLANG:-.engines/sglang}
export OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1
run() { # name, overrides
  "$vllm/bin/python" run.py strategy=single problems.n=200 repeats=4 model.logprobs=true "model.dtype=$dtype" \
    out="$out/$1-$dtype" store="$out/store.sqlite" "${@:2}"
}
for dtype in float32 bfloat16; do
  run hf backend=hf backend.threads=1
  run vllm backend=vllm "backend.engine_args={enforce_eager: true, enable_chunked_prefill: false, max_num_batched_tokens: 4096}"
  run sglang backend=sglang backend.python="$sglang" \
    "backend.engine_args={device: cpu, attention_backend: torch_native, max_total_tokens: 65536, max_running_requests: 256}" \
    "backend.env={PYTHONPATH: $sglang_cpu, SGLANG_USE_CPU_ENGINE: '1', SGLANG_CPU_OMP_THREADS_BIND: '0'}"
done
"$vllm/bin/python" -m experiments.engine_agreement.compare "$out"/{hf,vllm,sglang}-{float32,bfloat16}
