"""Data commands.

    python -m data_prep fetch [NAME --out ROOT]
    python -m data_prep check ROOT...
    python -m data_prep prepare ROOT... --checkpoint CHECKPOINT --out SHARDS
    python -m data_prep inspect SHARDS [--row N | --lengths]
    python -m data_prep merge OUT SHARDS SHARDS...
    python -m data_prep split SHARDS OUT OUT...
    python -m data_prep synthesize ROOT... --checkpoint CHECKPOINT --out FILE.jsonl

`prepare` is also the entry of `ray job submit`.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "0" if sys.argv[1:2] == ["fetch"] else "1")  # otherwise no network unless the user says so


from data_prep.assemble import merge, split
from data_prep.check import CheckSettings, as_json, check, exit_code, text
from data_prep.command import exit_status
from data_prep.fetch import FetchSettings, corpus, fetch, listing
from data_prep.lengths import length_table, lengths
from data_prep.samples import DataError
from data_prep.shards import Manifest, load_manifest
from data_prep.synthesize import cli as synthesis


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status (2: bad input, said so on standard error)."""
    args = _parser().parse_args(argv)
    return exit_status(args.run, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    get = commands.add_parser("fetch", help="download a corpus and unpack it; without a name: list what can be fetched")
    get.set_defaults(run=_fetch)
    get.add_argument("name", nargs="?", help="a name of the list")
    get.add_argument("--out", type=Path, help="folder in which the corpus gets a folder of its own")
    get.add_argument("--revision", help="branch, tag or commit (default: the pinned one; where none is known: main, its commit recorded)")
    get.add_argument("--only", nargs="+", default=(), metavar="PART", help="only these subsets or files; others can be added later")
    get.add_argument("--keep-archives", action="store_true", help="keep archives after unpacking")
    look = commands.add_parser("check", help="what prepare would set aside, and why", epilog=f"exit status: {exit_code.__doc__}")
    look.set_defaults(run=_check)
    look.add_argument("roots", nargs="+", type=Path, help="folders, as for prepare; evaluation data is looked at as well")
    look.add_argument("--split", default="original", help="MMEB-train split")
    look.add_argument("--image-root", type=Path, help="as for prepare")
    look.add_argument("--sample", type=int, metavar="N", help="open the images of about N rows per source (default: all)")
    look.add_argument("--checkpoint", help="encode every opened row as the job would, so that lengths are exact")
    look.add_argument("--min-pixels", type=int, help="as for prepare")
    look.add_argument("--max-pixels", type=int, help="as for prepare")
    look.add_argument("--max-tokens", type=int, default=4096, help="as for prepare")
    look.add_argument("--workers", type=int, help="processes (default: every CPU)")
    look.add_argument("--json", action="store_true", help="print JSON")
    job = commands.add_parser("prepare", help="raw data -> arrow shards, on Ray")
    job.set_defaults(run=_prepare)
    job.add_argument("roots", nargs="+", type=Path, help="folders with data in any known format")
    job.add_argument("--checkpoint", required=True, help="checkpoint with chorus tokens (folder or hub id)")
    job.add_argument("--out", required=True, type=Path, help="folder for the shards")
    job.add_argument("--against", nargs="+", type=Path, default=[], help="evaluation data: training rows that occur there are dropped")
    job.add_argument("--split", default="original", help="MMEB-train split: original or diverse_instruction")
    job.add_argument("--image-root", type=Path, help="folder the image paths start from, if not the data's own")
    job.add_argument("--min-pixels", type=int, help="smallest image area (default: the checkpoint's)")
    job.add_argument("--max-pixels", type=int, help="largest image area (default: the checkpoint's)")
    job.add_argument("--max-tokens", type=int, default=4096, help="longer rows lose turns or text, or are set aside")
    job.add_argument("--min-text-tokens", type=int, default=64, help="a text is not shortened to fewer tokens")
    job.add_argument("--rows-per-shard", type=int, default=512)
    job.add_argument("--workers", type=int, help="Ray workers (default: every CPU)")
    job.add_argument("--max-reject-share", type=float, default=0.02, help="stop when more rows than this share are unusable")
    show = commands.add_parser("inspect", help="print a shard folder's contents, or one decoded row with its roles")
    show.set_defaults(run=_inspect)
    show.add_argument("shards", type=Path)
    show.add_argument("--checkpoint", help="checkpoint whose tokenizer decodes the row")
    what = show.add_mutually_exclusive_group()
    what.add_argument("--row", type=int, help="row number to decode (over all shards)")
    what.add_argument("--lengths", action="store_true", help="tokens of the sequences: percentiles by source, and a histogram")
    join = commands.add_parser("merge", help="several prepared folders -> one; nothing is encoded again")
    join.set_defaults(run=_merge)
    join.add_argument("out", type=Path, help="a new folder")
    join.add_argument("shards", nargs="+", type=Path, help="folders of shards prepared by the same rules")
    deal = commands.add_parser("split", help="one prepared folder -> several, every source dealt out shard by shard")
    deal.set_defaults(run=_split)
    deal.add_argument("shards", type=Path)
    deal.add_argument("outs", nargs="+", type=Path, help="new folders, one for each part")
    synthesis.add_parser(commands)
    return parser


def _fetch(args: argparse.Namespace) -> int:
    if args.name is None:
        print(f"{listing()}\n\nNext: python -m data_prep fetch NAME --out ROOT")
        return 0
    if args.out is None:
        raise DataError(f"fetch {args.name}: found no --out; expected the folder in which the corpus gets a folder of its own")
    entry = corpus(args.name)
    folder = fetch(FetchSettings(**{name: getattr(args, name) for name in FetchSettings.model_fields}))
    print(f"\n{entry.elsewhere}\n" if entry.elsewhere else "")
    print(f"Next: python -m data_prep check {folder}")
    return 0


def _check(args: argparse.Namespace) -> int:
    survey = check(CheckSettings(**{name: getattr(args, name) for name in CheckSettings.model_fields}))
    status = exit_code(survey)
    print(as_json(survey) if args.json else text(survey))
    if status == 0 and not args.json:
        print(f"\nNext: bash launchers/prepare.sh {' '.join(map(str, args.roots))} --checkpoint CHECKPOINT --out SHARDS")
    return status


def _prepare(args: argparse.Namespace) -> int:
    from data_prep.encode import EncodeSettings  # these import transformers and ray: seconds that other commands need not wait
    from data_prep.job import PrepareSettings, prepare

    limits = ("min_pixels", "max_pixels", "max_tokens", "min_text_tokens")
    encode = EncodeSettings(**{name: getattr(args, name) for name in limits})
    names = ("roots", "checkpoint", "out", "against", "split", "image_root", "rows_per_shard", "workers", "max_reject_share")
    settings = PrepareSettings(encode=encode, **{name: getattr(args, name) for name in names})
    manifest = prepare(settings)
    print(summary(args.out, manifest))
    print(f"\nNext: deepspeed launchers/train.sh --data.shards {args.out} --model.checkpoint {args.checkpoint}")
    return 0


def summary(folder: Path, manifest: Manifest) -> str:
    """Rows, bytes and rejects per source, the reasons of the rejects and of what was dropped, and how many rows were shortened."""
    lines = [f"{'source':40} {'shards':>6} {'rows':>9} {'MiB':>8} {'set aside':>9}"]
    for source in sorted({shard.source for shard in manifest.shards}):
        own = [shard for shard in manifest.shards if shard.source == source]
        size = sum(shard.bytes for shard in own) / 2**20
        aside = sum(len(shard.rejected) for shard in own)
        lines.append(f"{source:40} {len(own):6} {sum(s.rows for s in own):9} {size:8.1f} {aside:9}")
    reasons = Counter(row.reason.split(":")[0] for row in manifest.rejected)
    lines += [f"  set aside, {reason}: {count}" for reason, count in reasons.most_common()]
    drops = Counter(row.reason.split(":")[0] for row in manifest.dropped)
    lines += [f"  dropped, {reason}: {count}" for reason, count in drops.most_common()]
    lines += [f"  shortened to --max-tokens, lost {what}: {count}" for what, count in sorted(manifest.shortened.items())]
    lines.append(f"{manifest.rows} rows in {folder}, manifest {manifest.digest()[:16]}")
    return "\n".join(lines)


def _inspect(args: argparse.Namespace) -> int:
    manifest = load_manifest(args.shards)
    if args.lengths:
        print(length_table(lengths(args.shards, manifest)))
        return 0
    if args.row is None:
        print(f"{summary(args.shards, manifest)}\n\nNext: python -m data_prep inspect {args.shards} --row 0 --checkpoint CHECKPOINT")
        return 0
    from data_prep.inspect import describe_row

    print(describe_row(args.shards, manifest, args.row, args.checkpoint))
    return 0


def _merge(args: argparse.Namespace) -> int:
    print(summary(args.out, merge(args.shards, args.out)))
    print(f"\nNext: deepspeed launchers/train.sh --data.shards {args.out} --model.checkpoint CHECKPOINT")
    return 0


def _split(args: argparse.Namespace) -> int:
    for out, manifest in zip(args.outs, split(args.shards, args.outs), strict=True):
        print(summary(out, manifest))
    print(f"\nNext: deepspeed launchers/train.sh --data.shards {args.outs[0]} --model.checkpoint CHECKPOINT")
    return 0


if __name__ == "__main__":
    sys.exit(main())
