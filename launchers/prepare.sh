#!/usr/bin/env bash
# Raw data -> arrow shards, on Ray:  bash launchers/prepare.sh FOLDER... --checkpoint CHECKPOINT --out SHARDS
# On a cluster:  ray job submit --working-dir . -- bash launchers/prepare.sh ...   (RAY_ADDRESS then names the cluster)
set -euo pipefail
# inside a Ray job the cluster's own environment runs
[ -n "${RAY_ADDRESS:-}" ] || source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python -m data_prep prepare "$@"
