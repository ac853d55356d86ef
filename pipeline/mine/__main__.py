"""Mine hard negatives: `python -m pipeline.mine MMEB-TRAIN --checkpoint CHECKPOINT --out FOLDER`.

On several GPUs: `torchrun --standalone --nproc-per-node 8 -m pipeline.mine ...`. The result is MMEB-train's parquet files with negative
columns; images stay where they are.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from data_prep.command import exit_status
from data_prep.encode import EncodeSettings
from data_prep.synthesize.inputs import mmeb_parts
from pipeline import comm
from pipeline.allocator import keep_freed_memory
from pipeline.mine.choose import ChooseSettings
from pipeline.mine.job import MineSettings, mine


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns the exit status (2: bad input, said so on standard error)."""
    args = _parser().parse_args(argv)
    keep_freed_memory()
    return exit_status(_mine, vars(args))


def _mine(args: dict) -> int:
    try:
        for name, kind in (("encode", EncodeSettings), ("choose", ChooseSettings)):
            args[name] = kind(**{field: args.pop(field) for field in kind.model_fields if field in args})
        settings = MineSettings(**args)
        report = mine(settings, comm.join())
    finally:
        comm.shutdown()
    if report is not None:
        print(summary(report))
        images = mmeb_parts([settings.root], settings.image_root, settings.split)[0].root
        print(f"\nNext: bash launchers/prepare.sh {settings.out} --image-root {images} \\")
        print(f"          --checkpoint {settings.checkpoint} --out SHARDS")
    return 0


def summary(report: dict) -> str:
    """The report as a table, a line per subset."""
    lines = [f"{'subset':24} {'rows':>8} {'targets':>8} {'mined for':>10} {'negatives':>10} {'ranks':>10} {'false?':>8} {'unusable':>9}"]
    for name, of in report.items():
        lines.append(
            f"{name:24} {of['rows']:8} {of['targets']:8} {of['share with mined negatives']:10.1%} {of['mined negatives']:10} "
            f"{of['ranks considered']:10} {of['dropped as probable false negatives']:8} {of['unusable rows']:9}"
        )
    return "\n".join([*lines, "ranks: neighbours looked at; false?: of those, dropped as probable false negatives (margin)"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.mine", allow_abbrev=False, description=__doc__, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("root", type=Path, help="an MMEB-train folder, or its parent")
    parser.add_argument("--checkpoint", required=True, help="an exported folder, or any checkpoint with chorus tokens")
    parser.add_argument("--out", required=True, type=Path, help="new folder for the parquet files")
    parser.add_argument("--split", help="MMEB-train split: original or diverse_instruction")
    parser.add_argument("--image-root", type=Path, help="folder the image paths start from, if not the data's own")
    parser.add_argument("--k", type=int, help="chorus tokens used (default: all)")
    parser.add_argument("--negatives", type=int, help="negatives per row, at most (default: 1)")
    parser.add_argument("--first-rank", type=int, help="nearest rank that is considered (default: 10); fewer targets: no negatives")
    parser.add_argument("--last-rank", type=int, help="furthest rank that is considered (default: 50)")
    parser.add_argument("--margin", type=float, help="candidates above the positive's cosine less this are left out (default: 0.05)")
    parser.add_argument("--seed", type=int, help="another seed, other draws")
    parser.add_argument("--min-pixels", type=int, help="smallest image area (default: the checkpoint's)")
    parser.add_argument("--max-pixels", type=int, help="largest image area (default: the checkpoint's)")
    parser.add_argument("--max-tokens", type=int, help="longer sides are left out (default: 4096)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
