"""Make an evaluation's page again: `python -m pipeline.evaluate.page EVALUATION [--mmeb FOLDER] [--benchmarks PATH ...]`.

The evaluation writes `report.html` by itself. This draws it anew, for example once there are evaluations at other `--k` beside it, or a
study. Pictures come from the data named; without it the galleries hold text and placeholders.
"""

import argparse
import sys
from pathlib import Path

from data_prep.command import exit_status
from data_prep.sources.benchmarks import load_benchmark
from data_prep.sources.mmeb_eval import load_sets
from pipeline.evaluate.page.render import write_report
from pipeline.evaluate.page.tables import read_report


def main(argv: list[str] | None = None) -> int:
    """Write the page; returns the exit status (2: bad input, said so on standard error)."""
    return exit_status(_write, _parser().parse_args(argv))


def _write(args: argparse.Namespace) -> int:
    report = read_report(args.evaluation)
    sets = load_sets(args.mmeb, args.image_root) if args.mmeb else []
    named = [path for given in args.benchmarks for path in (sorted(given.glob("*.tsv")) if given.is_dir() else [given])]
    print(write_report(report, args.evaluation, sets, [load_benchmark(path) for path in named], args.study))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate.page", allow_abbrev=False, description=__doc__)
    parser.add_argument("evaluation", type=Path, help="the folder of a finished evaluation")
    parser.add_argument("--mmeb", type=Path, help="folder of the MMEB-eval sets that were scored")
    parser.add_argument("--image-root", type=Path, help="folder the MMEB image paths start from, if not the data's own")
    parser.add_argument("--benchmarks", type=Path, nargs="*", default=[], help="the TSV files that were scored, or folders of them")
    parser.add_argument("--study", type=Path, nargs="*", default=[], help="study.json files, for scores by number of chorus tokens")
    return parser


if __name__ == "__main__":
    sys.exit(main())
