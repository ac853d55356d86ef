#!/usr/bin/env bash
# All quick tests, in the pinned environment, on two cores. Arguments go to pytest, which then runs in one process (-s prints, slow tests
# measure):  bash launchers/test.sh -m slow -s tests/data_prep/test_faults.py
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
ruff check .
lint-imports
if [ $# -eq 0 ]; then
    set -- -n 2 --dist loadfile --no-loadscope-reorder  # files in the order of tests/conftest.py
fi
exec python -m pytest "$@"
