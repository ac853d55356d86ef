#!/usr/bin/env bash
# Several trainings compared, under one MLflow run:
#     bash launchers/study.sh ablation --checkpoint BASE --shards-from DATA --mmeb DATA/MMEB-eval --benchmarks DATA/benchmarks --out OUT [--steps 200]
#     bash launchers/study.sh elastic  ...the same
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python -m pipeline.study "$@"
