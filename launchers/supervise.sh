#!/usr/bin/env bash
# A launcher under supervision: every rank is signalled at once, none is left behind, a rank that hangs is named, and the exit status is true.
#     bash launchers/supervise.sh [--restarts 3] deepspeed --hostfile hosts launchers/train.sh RECIPE ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python -m pipeline.supervise "$@"
