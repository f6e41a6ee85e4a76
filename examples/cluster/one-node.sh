#!/usr/bin/env bash
# One machine with several GPUs. Ray starts by itself and ends with the command; nothing else has to be set up.
#
#   bash one-node.sh                          all GPUs of this machine
#   GPUS=4 OUT=runs/first bash one-node.sh    four of them
#
# Given again, the same command goes on from the last checkpoint.
set -euo pipefail

JOB=${JOB:-job_grpo.toml}
OUT=${OUT:-runs/one-node}
GPUS=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
if ((GPUS < 3)); then
  echo "needs 3 GPUs (a worker, a generator, the reward) and has $GPUS: run it with --backend local --device cuda" >&2
  exit 78
fi
# The reward has a GPU of its own. Of the others a quarter draws responses: look at time/generate beside time/update.
GENERATORS=${GENERATORS:-$(((GPUS + 3) / 4))}
WORKERS=$((GPUS - 1 - GENERATORS))

further=()
if [[ -d "$OUT/checkpoints" ]]; then further+=(--resume); fi
exec plaudit grpo "$JOB" --backend ray --device cuda --workers "$WORKERS" --generators "$GENERATORS" \
  --out "$OUT" ${further[@]+"${further[@]}"}
