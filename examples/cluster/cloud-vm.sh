#!/usr/bin/env bash
# A rented machine with GPUs: sets up what is missing, then runs, and goes on by itself after what may be tried again.
#
#   bash cloud-vm.sh                         in tmux or under nohup, so that it outlives your connection
#
# PLAUDIT  what pip installs (default plaudit[ray]; a path of a checkout with [ray] after it works too)
# OUT      where the run is written: a disk that outlives the machine, if it can be taken away
# TRIES    how often a run that was interrupted goes on (default 5)
set -uo pipefail

JOB=${JOB:-job_grpo.toml}
OUT=${OUT:-runs/cloud}
TRIES=${TRIES:-5}
export OUT JOB

if ! nvidia-smi >/dev/null; then
  echo "nvidia-smi finds no GPU: take an image with NVIDIA's driver, or install it" >&2
  exit 74
fi
if [[ ! -x .venv/bin/plaudit ]]; then
  python3 -m venv .venv && .venv/bin/pip install "${PLAUDIT:-plaudit[ray]}" || exit 74
fi
source .venv/bin/activate
plaudit doctor --out "$(dirname "$OUT")" || exit

code=0
for try in $(seq "$TRIES"); do
  bash "$(dirname "$0")/one-node.sh"
  code=$?
  # 75: stopped, and can go on. 74: the machine, such as a worker that has died. Anything else another try does not mend.
  if ((code != 75 && code != 74)); then break; fi
  echo "try $try of $TRIES ended with exit code $code" >&2
  if [[ ! -d "$OUT/checkpoints" ]]; then break; fi # nothing to go on from: the cause is above
  sleep 20
done
exit "$code"
