#!/usr/bin/env bash
# The whole pipeline on an embedded default, offline, on two CPU cores: checkpoint -> data -> Ray shards -> joint ZeRO-3 training -> scores.
# Arguments go to the trainer:  bash launchers/quickstart.sh --steps 50
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
work="${CREM_WORK:-work}"
if [ -e "$work/run" ]; then
    echo "error: $work/run exists from an earlier quickstart; remove it and its scores (rm -r $work/run $work/eval), or set CREM_WORK to another folder" >&2
    exit 2
fi
started=$SECONDS
say() { printf '\n== %s (%d s)\n' "$*" "$((SECONDS - started))"; }

checkpoint() {
    [ -d "$work/base" ] || python -m pipeline.model base "$work/base"
    [ -d "$work/crem-init" ] || python -m pipeline.model chorus "$work/base" "$work/crem-init"
}

mkdir -p "$work"
say "1/6 data: procedurally drawn scenes in the field's formats; meanwhile, on the other core,"
say "2/6 checkpoint: a small random-weight Qwen2-VL, then its chorus tokens"
checkpoint & made=$!
[ -d "$work/data" ] || python -m data_prep.embedded "$work/data"
wait "$made"
say "3/6 prepare: Ray job to arrow shards"
bash launchers/prepare.sh "$work/data" --checkpoint "$work/crem-init" --out "$work/shards"
say "4/6 train: joint objective, two ranks, ZeRO-3"
deepspeed --log_level warning --num_gpus 2 launchers/train.sh tiny --model.checkpoint "$work/crem-init" --data.shards "$work/shards" \
    --out "$work/run" --track.uri "sqlite:///$work/mlflow.db" --track.artifacts "$work/mlartifacts" "$@"
say "5/6 evaluate: MMEB sets and benchmarks, native and compressed"
bash launchers/evaluate.sh "$work/run/export" --mmeb "$work/data/MMEB-eval" --benchmarks "$work/data/benchmarks" \
    --out "$work/eval" --track-uri "sqlite:///$work/mlflow.db" --track-artifacts "$work/mlartifacts"
say "6/6 done"
cat <<EOF
data         $work/data
checkpoint   $work/run/export   (opens with transformers' from_pretrained)
scores       $work/eval/report.html (open it in a browser), scores.md, every prediction in $work/eval/predictions
metrics      $work/run/metrics.jsonl, and MLflow

Next:
  bash launchers/mlflow_ui.sh                                         look at the runs
  bash launchers/prepare.sh YOUR_DATA --checkpoint $work/crem-init --out work/my-shards
  bash launchers/train.sh tiny --data.shards work/my-shards --out work/my-run           train on your own data
EOF
