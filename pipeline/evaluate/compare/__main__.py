"""Compare checkpoints: `python -m pipeline.evaluate.compare FIRST OTHER [OTHER ...]`.

Each is the folder of a finished evaluation (scores.json and predictions), or the id of its MLflow run. All are compared with the first:
scores with 95 % intervals, paired tests, and what is within noise. Evaluations of different questions are refused.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

from data_prep.command import exit_status
from data_prep.samples import DataError
from data_prep.shards import atomic_file
from pipeline.evaluate.compare import tables
from pipeline.evaluate.compare.comparison import compare
from pipeline.evaluate.compare.evaluations import Evaluation, read_evaluation
from pipeline.evaluate.compare.picture import draw
from pipeline.evaluate.compare.statistics import RESAMPLES
from pipeline.evaluate.page.compared import write_page
from pipeline.track import TrackSettings, download

RUN_ID = re.compile(r"[0-9a-f]{32}")


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; returns the exit status (2: bad input, said so on standard error)."""
    args = _parser().parse_args(argv)
    return exit_status(run, args)


def run(args: argparse.Namespace) -> int:
    """Read everything, compare, write."""
    if len(args.evaluations) < 2:
        raise DataError(f"found {len(args.evaluations)} evaluation; expected two or more to compare")
    if args.resamples < 1000:
        raise DataError(f"--resamples {args.resamples}: found too few for the ends of a 95 % interval; expected 1000 or more")
    with tempfile.TemporaryDirectory() as scratch:
        evaluations = read_all(args.evaluations, Path(scratch), args.track_uri)
    comparison = compare(evaluations, args.seed, args.resamples, args.common)
    print(tables.console(comparison))
    args.out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, text in (("comparison.json", tables.as_json(comparison)), ("comparison.md", tables.markdown(comparison))):
        with atomic_file(args.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        files.append(args.out / name)
    files += [*draw(comparison, args.out), write_page(comparison, args.out)]
    print("written:\n" + "\n".join(f"  {path}" for path in files))
    return 0


def read_all(named: list[str], scratch: Path, uri: str) -> list[Evaluation]:
    """The evaluations, in order, each with a short label of its own; those of MLflow are brought into `scratch`."""
    out = []
    for label, name in zip(labels(named), named, strict=True):
        folder = Path(name)
        if not folder.exists() and RUN_ID.fullmatch(name):
            folder = scratch / label
            download(uri, name, ("scores.json", "predictions"), folder)
            name = f"MLflow run {name}"
        out.append(read_evaluation(folder, label, name))
    return out


def labels(named: list[str]) -> list[str]:
    """The shortest endings of the paths that tell them apart (a run id: its first 8 characters); numbered where they are the same."""
    parts = [(name[:8],) if RUN_ID.fullmatch(name) else Path(os.path.abspath(name)).parts for name in named]
    for length in range(1, max(map(len, parts)) + 1):
        out = [_end(str(Path(*own[-length:])), 24) for own in parts]
        if len(set(out)) == len(out):
            return out
    return [f"{i}: {_end(label, 20)}" for i, label in enumerate(out, 1)]


def _end(label: str, length: int) -> str:
    return label if len(label) <= length else f"…{label[1 - length :]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bash launchers/compare.sh", allow_abbrev=False, description=__doc__)
    parser.add_argument("evaluations", nargs="+", help="folders of evaluations, or MLflow run ids; all are compared with the first")
    parser.add_argument("--out", type=Path, default=Path("work/compare"), help="folder for the comparison (default: work/compare)")
    parser.add_argument("--common", action="store_true", help="compare what all have, and leave out the rest")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"of the bootstrap (default: {RESAMPLES})")
    parser.add_argument("--track-uri", default=TrackSettings().uri, help="MLflow tracking URI (default: sqlite:///work/mlflow.db)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
