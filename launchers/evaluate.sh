#!/usr/bin/env bash
# Score a checkpoint:  bash launchers/evaluate.sh CHECKPOINT [--mmeb FOLDER] [--benchmarks FILE_OR_FOLDER ...]
# Without --mmeb and --benchmarks, the embedded evaluation data of the quickstart is scored.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
case " $* " in
    *" --mmeb "* | *" --benchmarks "* | *" --help "* | *" -h "*) ;;
    *) set -- "$@" --mmeb "$root/work/data/MMEB-eval" --benchmarks "$root/work/data/benchmarks" ;;
esac
exec python -m pipeline.evaluate "$@"
