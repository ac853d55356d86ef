#!/usr/bin/env bash
# Evaluations of the same questions side by side, with intervals and paired tests:  bash launchers/compare.sh FIRST OTHER ... [--out FOLDER]
# Each is the folder of a finished evaluation, or the id of its MLflow run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python -m pipeline.evaluate.compare "$@"
