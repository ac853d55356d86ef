#!/usr/bin/env bash
# Score a checkpoint:  bash launchers/evaluate.sh CHECKPOINT [--mmeb FOLDER] [--benchmarks FILE_OR_FOLDER ...]
# A checkpoint without chorus tokens is scored as a baseline. --workers N for several processes; started again, it goes on where it was.
# Without --mmeb and --benchmarks, the embedded evaluation data of the quickstart is scored.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python -m pipeline.evaluate "$@"
