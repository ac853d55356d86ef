"""Run a study: `bash launchers/study.sh ablation|elastic --checkpoint BASE --shards-from DATA --mmeb ... --benchmarks ... --out OUT`.

The ablation leaves out one part of the method after the other (CREM, Tables 3 and 4); the elastic study compares one run for all chorus
sizes with a run for each. What is done is not done again: the same command goes on after a failure. Options that are not listed here
go to the trainer of every arm, e.g. --steps 200 --seed 1; what an arm varies, it sets itself.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from data_prep.command import exit_status
from pipeline.study.arms import ELASTIC_K, FULL_K, KINDS
from pipeline.study.run import run_study
from pipeline.study.settings import StudySettings


def main(argv: list[str] | None = None) -> int:
    """Run a study; returns the exit status (2: bad input or a failed arm, said so on standard error)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended too
    args, words = _parser().parse_known_args(argv)
    return exit_status(_study, args, words)


def _study(args: argparse.Namespace, words: list[str]) -> int:
    run_study(StudySettings(**vars(args), words=tuple(words)), lambda line: print(line, flush=True))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bash launchers/study.sh", allow_abbrev=False, description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint folder without chorus tokens")
    parser.add_argument("--shards-from", type=Path, nargs="+", required=True, help="folders of raw training data")
    parser.add_argument("--mmeb", type=Path, required=True, help="folder of MMEB-eval sets")
    parser.add_argument("--benchmarks", type=Path, required=True, help="folder of VLMEvalKit TSV files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--recipe", default="tiny", help="the trainer's recipe (default tiny)")
    sizes = ",".join(map(str, ELASTIC_K))
    text = f"chorus sizes, e.g. 1,4,16: further arms of the ablation (default none); those of the elastic study (default {sizes})"
    parser.add_argument("--k", dest="sizes", type=_numbers, default=(), help=text)
    parser.add_argument("--full-k", type=int, default=FULL_K, help=f"chorus tokens of the ablation's arms (default {FULL_K})")
    parser.add_argument("--arms", type=_names, default=(), help="only these, e.g. full,retrieval_only")
    parser.add_argument("--max-pixels", type=int, help="largest image area (default: the checkpoint's)")
    parser.add_argument("--track-uri", default="sqlite:///work/mlflow.db", help="MLflow tracking URI")
    parser.add_argument("--track-artifacts", default="work/mlartifacts", help="where a new MLflow experiment keeps artifacts")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in _names(text))


def _names(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


if __name__ == "__main__":
    sys.exit(main())
