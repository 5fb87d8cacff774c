#!/usr/bin/env bash
# Real verl on a machine without a GPU, for tests: install.sh FOLDER (Python 3.11 or 3.12, 2 GB, two minutes). On a GPU,
# install it as experiments/train_pacore_8b/README.md says.
set -euo pipefail
venv=$1 here=$(cd "$(dirname "$0")" && pwd)
"${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
pip torch==2.13.0 --requirement "$here/verl.txt"
# wandb, which verl asks for, is never called here
pip --no-deps verl==0.9.1
pip --no-deps --editable "$here/../.."
touch "$venv/ready"
