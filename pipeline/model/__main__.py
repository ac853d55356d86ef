"""Checkpoint commands: `python -m pipeline.model base OUT --family qwen3_vl`, `python -m pipeline.model chorus CHECKPOINT OUT --k 16`."""

import argparse
import sys
from pathlib import Path

from data_prep.checkpoint import FAMILIES
from data_prep.command import exit_status
from data_prep.embedded import corpus
from pipeline.model.base import write_base
from pipeline.model.chorus import add_chorus


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status (2: bad input, said so on standard error)."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    base = commands.add_parser("base", help="write a small random-weight checkpoint folder")
    base.add_argument("out", type=Path)
    base.add_argument("--family", choices=FAMILIES, default=FAMILIES[0], help=f"architecture (default {FAMILIES[0]})")
    base.add_argument("--seed", type=int, default=0)
    chorus = commands.add_parser("chorus", help="copy a checkpoint and give it chorus tokens")
    chorus.add_argument("checkpoint", help="checkpoint folder or hub id")
    chorus.add_argument("out", type=Path)
    chorus.add_argument("--k", type=int, default=16, help="chorus tokens (default 16, as in the paper; 0: end-of-sequence pooling)")
    chorus.add_argument("--seed", type=int, default=0)
    return exit_status(_write, parser.parse_args(argv))


def _write(args: argparse.Namespace) -> int:
    if args.command == "base":
        print(f"{args.out}: {write_base(args.out, corpus(args.seed), seed=args.seed, family=args.family):,} parameters")
    else:
        ids = add_chorus(args.checkpoint, args.out, args.k, args.seed)
        what = f"{len(ids)} chorus tokens, ids {ids[0]} to {ids[-1]}" if args.k else f"end-of-sequence pooling, id {ids[0]}"
        print(f"{args.out}: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
