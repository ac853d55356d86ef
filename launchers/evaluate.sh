#!/usr/bin/env bash
# Score a checkpoint:  bash launchers/evaluate.sh CHECKPOINT [--mmeb FOLDER] [--benchmarks FILE_OR_FOLDER ...]
# Without --mmeb and --benchmarks, the embedded evaluation data of the quickstart is scored.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python -m pipeline.evaluate "$@"
