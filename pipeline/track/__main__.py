"""`python -m pipeline.track sync RUN_DIR...`: send MLflow what it missed. Exit status: 0 all sent, 1 some refused, 2 not possible now."""

import argparse
import os
import sys
from pathlib import Path

from data_prep.command import exit_status
from pipeline.track.sync import sync


def main(argv: list[str] | None = None) -> int:
    """Sync every run named; the worst of their statuses."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.track", allow_abbrev=False, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    words = commands.add_parser(
        "sync", help="replay metrics.jsonl and record.jsonl into MLflow; twice is as good as once", allow_abbrev=False
    )
    words.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="folder of a training, an evaluation or a study")
    words.add_argument("--uri", help="another tracking URI than the run's own")
    args = parser.parse_args(argv)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # nobody trains meanwhile: patience costs nothing
    return max(exit_status(_one, run_dir, args.uri) for run_dir in args.run_dirs)


def _one(run_dir: Path, uri: str | None) -> int:
    done = sync(run_dir, uri)
    new = " (new)" if done.created else ""
    print(f"{run_dir}: run {done.run_id}{new}: {done.values} values were missing, {done.entries} params, tags and files are in place")
    for refusal in done.refusals:
        print(f"  refused: {refusal}", file=sys.stderr)
    return 1 if done.refusals else 0


if __name__ == "__main__":
    sys.exit(main())
