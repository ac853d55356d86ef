#!/usr/bin/env bash
''':' # Valid for both shells: bash reads this line as the null command, Python as the opening of a string.
#
# Train, on every rank this machine or hostfile has. All of these do the same:
#     deepspeed launchers/train.sh [RECIPE] [--resume [auto]] [--section.field value ...]
#     deepspeed --no_python ./launchers/train.sh ...
#     bash launchers/train.sh ...
#
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
[ -d "$here/.venv" ] && export PATH="$here/.venv/bin:$PATH"
# RANK is set where a launcher has started this very rank; otherwise start the launcher
[ -n "${RANK:-}" ] && exec python -u "$here/launchers/train.sh" "$@"
exec deepspeed "$here/launchers/train.sh" "$@"
'''
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pipeline.train.launch import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
