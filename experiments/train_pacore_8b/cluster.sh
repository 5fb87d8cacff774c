#!/usr/bin/env bash
# Several nodes of 8 GPUs by Ray, everything on storage that all of them see. NOT RUN on GPUs by us.
#   cluster.sh head                                                    on the first node
#   cluster.sh worker HEAD_ADDRESS                                     on each of the others
#   cluster.sh submit NODES CHECKPOINT RECORDS OUT [verl overrides]    on the first node
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case "${1:-} $#" in
"head 1") exec ray start --head --port=6379 --dashboard-host=127.0.0.1 --dashboard-port=8265 ;;
"worker 2") exec ray start --address="$2:6379" ;;
submit\ [5-9] | submit\ [1-9][0-9])
  exec ray job submit --address=http://127.0.0.1:8265 -- bash "$here/train.sh" \
    "$(realpath "$3")" "$(realpath "$4")" "$(realpath -m "$5")" trainer.nnodes="$2" "${@:6}"
  ;;
*)
  echo "cluster.sh head | worker HEAD_ADDRESS | submit NODES CHECKPOINT RECORDS OUT [verl overrides]" >&2
  exit 2
  ;;
esac
