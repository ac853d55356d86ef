#!/usr/bin/env bash
# Hard negatives for MMEB-train, one process per GPU:  bash launchers/mine.sh MMEB-TRAIN --checkpoint CHECKPOINT --out FOLDER
# CREM_CPU_RANKS=2 starts two processes where there is no GPU (default: one).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ranks="$(python -c 'import torch; print(torch.cuda.device_count())')"
[ "$ranks" -gt 0 ] || ranks="${CREM_CPU_RANKS:-1}"
[ "$ranks" -gt 1 ] || exec python -m pipeline.mine "$@"
exec torchrun --standalone --nproc-per-node "$ranks" -m pipeline.mine "$@"
