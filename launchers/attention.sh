#!/usr/bin/env bash
# Where the chorus tokens look, as heat maps:  bash launchers/attention.sh CHECKPOINT --images A.png B.jpg [--texts ...] [--k K]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python -m pipeline.evaluate.attention "$@"
