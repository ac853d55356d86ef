#!/usr/bin/env bash
# A vision-language model writes questions and answers about MMEB-train rows, on Ray:
#   bash launchers/synthesize.sh FOLDER... --checkpoint CHECKPOINT --out FILE.jsonl
# On a cluster:  ray job submit --working-dir . -- bash launchers/synthesize.sh ...   (RAY_ADDRESS then names the cluster)
set -euo pipefail
# inside a Ray job the cluster's own environment runs
[ -n "${RAY_ADDRESS:-}" ] || source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python -m data_prep synthesize "$@"
