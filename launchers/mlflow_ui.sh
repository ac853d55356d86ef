#!/usr/bin/env bash
# Open the runs in a browser, on this machine only:  bash launchers/mlflow_ui.sh [PORT]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
port="${1:-5000}"
echo "MLflow: http://127.0.0.1:$port  (Ctrl-C ends it)"
exec mlflow ui --backend-store-uri "${MLFLOW_TRACKING_URI:-sqlite:///work/mlflow.db}" --host 127.0.0.1 --port "$port" --workers 1
