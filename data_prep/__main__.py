"""Data commands.

    python -m data_prep prepare ROOT... --checkpoint CHECKPOINT --out SHARDS
    python -m data_prep inspect SHARDS [--row N]
    python -m data_prep synthesize ROOT... --checkpoint CHECKPOINT --out FILE.jsonl

`prepare` is also the entry of `ray job submit`.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no network unless the user says HF_HUB_OFFLINE=0

from pydantic import ValidationError

from data_prep.encode import EncodeSettings
from data_prep.job import PrepareSettings, prepare
from data_prep.samples import DataError
from data_prep.shards import Manifest, load_manifest
from data_prep.synthesize import cli as synthesis


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status (2: bad input, said so on standard error)."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ValidationError as error:
        for wrong in error.errors():
            option = str(wrong["loc"][-1]).replace("_", "-")
            print(f"error: --{option} {wrong['input']}: {wrong['msg']}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    job = commands.add_parser("prepare", help="raw data -> arrow shards, on Ray")
    job.set_defaults(run=_prepare)
    job.add_argument("roots", nargs="+", type=Path, help="folders with data in any known format")
    job.add_argument("--checkpoint", required=True, help="checkpoint with chorus tokens (folder or hub id)")
    job.add_argument("--out", required=True, type=Path, help="folder for the shards")
    job.add_argument("--split", default="original", help="MMEB-train split: original or diverse_instruction")
    job.add_argument("--image-root", type=Path, help="folder the image paths start from, if not the data's own")
    job.add_argument("--min-pixels", type=int, help="smallest image area (default: the checkpoint's)")
    job.add_argument("--max-pixels", type=int, help="largest image area (default: the checkpoint's)")
    job.add_argument("--max-tokens", type=int, default=4096, help="longer rows are set aside, never cut")
    job.add_argument("--rows-per-shard", type=int, default=512)
    job.add_argument("--workers", type=int, help="Ray workers (default: every CPU)")
    job.add_argument("--max-reject-share", type=float, default=0.02, help="stop when more rows than this share are unusable")
    show = commands.add_parser("inspect", help="print a shard folder's contents, or one decoded row with its roles")
    show.set_defaults(run=_inspect)
    show.add_argument("shards", type=Path)
    show.add_argument("--row", type=int, help="row number to decode (over all shards)")
    show.add_argument("--checkpoint", help="checkpoint whose tokenizer decodes the row")
    synthesis.add_parser(commands)
    return parser


def _prepare(args: argparse.Namespace) -> int:
    encode = EncodeSettings(min_pixels=args.min_pixels, max_pixels=args.max_pixels, max_tokens=args.max_tokens)
    names = ("roots", "checkpoint", "out", "split", "image_root", "rows_per_shard", "workers", "max_reject_share")
    settings = PrepareSettings(encode=encode, **{name: getattr(args, name) for name in names})
    manifest = prepare(settings)
    print(summary(args.out, manifest))
    print(f"\nNext: deepspeed launchers/train.sh --data.shards {args.out} --model.checkpoint {args.checkpoint}")
    return 0


def summary(folder: Path, manifest: Manifest) -> str:
    """Rows, bytes and rejects per source, and the reasons of the rejects."""
    lines = [f"{'source':40} {'shards':>6} {'rows':>9} {'MiB':>8} {'set aside':>9}"]
    for source in sorted({shard.source for shard in manifest.shards}):
        own = [shard for shard in manifest.shards if shard.source == source]
        size = sum(shard.bytes for shard in own) / 2**20
        aside = sum(len(shard.rejected) for shard in own)
        lines.append(f"{source:40} {len(own):6} {sum(s.rows for s in own):9} {size:8.1f} {aside:9}")
    reasons = Counter(row.reason.split(":")[0] for row in manifest.rejected)
    lines += [f"  set aside, {reason}: {count}" for reason, count in reasons.most_common()]
    lines.append(f"{manifest.rows} rows in {folder}, manifest {manifest.digest()[:16]}")
    return "\n".join(lines)


def _inspect(args: argparse.Namespace) -> int:
    manifest = load_manifest(args.shards)
    if args.row is None:
        print(summary(args.shards, manifest))
        return 0
    from data_prep.inspect import describe_row

    print(describe_row(args.shards, manifest, args.row, args.checkpoint))
    return 0


if __name__ == "__main__":
    sys.exit(main())
