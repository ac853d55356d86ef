#!/usr/bin/env bash
# All tests, in the pinned environment. Arguments go to pytest: bash launchers/test.sh -m slow
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
ruff check .
lint-imports
exec python -m pytest "$@"
