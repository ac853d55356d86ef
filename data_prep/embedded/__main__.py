"""Write the embedded data set.

python -m data_prep.embedded OUT [--rows N] [--seed S]
"""

import argparse
import sys
from pathlib import Path

from data_prep.command import exit_status
from data_prep.embedded import DEFAULT_ROWS, write_embedded


def main(argv: list[str] | None = None) -> int:
    """Write, and print what was written and what to do next; returns the exit status (2: bad input)."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.embedded", description="Write the embedded data set.")
    parser.add_argument("out", type=Path, help="folder to write; must not exist, or be empty")
    parser.add_argument("--rows", type=int, default=DEFAULT_ROWS, help="rows of the largest subsets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other scenes (default: %(default)s)")
    return exit_status(_write, parser.parse_args(argv))


def _write(args: argparse.Namespace) -> int:
    print(table(write_embedded(args.out, args.rows, args.seed)))
    print(f"\nNext: python -m data_prep prepare {args.out} --checkpoint CHECKPOINT --out SHARDS")
    return 0


def table(summary: dict[str, dict[str, int]]) -> str:
    """The summary as lines of text, one per subset, and the sums."""
    lines = [f"{'subset':32} {'rows':>9} {'images':>9}"]
    lines += [f"{name:32} {count['rows']:9} {count['images']:9}" for name, count in summary.items()]
    sums = {key: sum(count[key] for count in summary.values()) for key in ("rows", "images")}
    return "\n".join([*lines, f"{'all':32} {sums['rows']:9} {sums['images']:9}"])


if __name__ == "__main__":
    sys.exit(main())
