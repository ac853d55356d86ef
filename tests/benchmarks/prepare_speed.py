"""Rows per second of `prepare` against datasets.map with the image processor: python -m tests.benchmarks.prepare_speed [MMEB_TRAIN_FOLDER]

Both make ready every side of the same rows of MMEB-train-format data: decode, resize, tokenize, write. The usual way (`tests/benchmarks/
prepare_map.py`) stores the processor's patches in float16; ours stores token ids, roles and the resized pictures, compressed without loss,
digested and flushed to disk. Every round runs all of it in turn; medians are printed.

    rows/s          datasets.map: its processes' start included, imports and reading the table not; its result is in a cache, which
                    save_to_disk (one process) copies to where it is wanted. Ours: the job in a running Ray whose workers have loaded the
                    checkpoint; reading the table, and digests, included
    with the start  ours as a command: Python, Ray, workers and their imports included. A constant number of seconds, whatever the rows
    bytes/row       of everything written
    where the time of one worker goes: the same rows once more in this process, each call timed

Without a folder the rows are the embedded data set's; --checkpoint names any with chorus tokens, else a small one is written.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep.cluster import cluster
from data_prep.embedded import corpus, write_embedded
from data_prep.encode import EncodeSettings
from data_prep.job import PrepareSettings, prepare
from data_prep.sources import discover
from pipeline.model.base import write_base
from pipeline.model.chorus import add_chorus
from tests.benchmarks.prepare_profile import profile
from tests.benchmarks.prepare_rows import Rows, choose


def main(argv: list[str] | None = None) -> None:
    """Choose rows, run all ways in turn, print the table and the profile."""
    args = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if not args.checkpoint:
            write_base(work / "base", corpus(0))
            add_chorus(work / "base", work / "crem")
        checkpoint = args.checkpoint or str(work / "crem")
        if not args.data:
            write_embedded(work / "data", args.rows)
        rows = choose(args.data or work / "data" / "MMEB-train", args.rows, work / "rows")
        settings = PrepareSettings(
            roots=(rows.root,),
            image_root=rows.images,
            checkpoint=checkpoint,
            out=work / "shards",
            encode=EncodeSettings(min_pixels=args.min_pixels, max_pixels=args.max_pixels, max_tokens=10**6),
            rows_per_shard=args.rows_per_shard,
        )
        found: dict[str, list[tuple[float, float]]] = {}
        for number in range(args.rounds):
            for way, figures in one_round(rows, settings, max(args.workers), args.workers, work / f"round{number}"):
                found.setdefault(way, []).append(figures)
        report(rows, found, args)
        print("\n".join(profile(settings, rows.count)))


def one_round(rows: Rows, settings: PrepareSettings, processes: int, workers: list[int], work: Path):
    """(way, (seconds, bytes)) of every way, one after the other."""
    work.mkdir()
    words = [rows.root, rows.images, settings.checkpoint, processes, settings.encode.min_pixels or 0, settings.encode.max_pixels or 0]
    command = [sys.executable, "-m", "tests.benchmarks.prepare_map", *map(str, words), str(work / "map")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    mapped, saved = map(float, done.stdout.split()[-2:])
    yield f"datasets.map + save_to_disk, {processes} processes", (saved, size(work / "map"))
    yield f"datasets.map alone, {processes} processes", (mapped, size(work / "map"))
    for number in workers:
        own = settings.model_copy(update={"workers": number, "out": work / f"ours{number}"})
        with cluster(number):
            prepare(_warm_up(own, work / f"warm{number}"))
            yield f"ours, {number} workers", timed(own)
    words = [*map(str, settings.roots), "--image-root", str(rows.images), "--checkpoint", settings.checkpoint, "--max-tokens", str(10**6)]
    words += ["--rows-per-shard", str(settings.rows_per_shard), "--workers", str(processes), "--out", str(work / "command")]
    for limit in ("min_pixels", "max_pixels"):
        if value := getattr(settings.encode, limit):
            words += [f"--{limit.replace('_', '-')}", str(value)]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "data_prep", "prepare", *words], check=True, capture_output=True)
    yield f"ours, {processes} workers, with the start", (time.perf_counter() - start, size(work / "command"))


def _warm_up(settings: PrepareSettings, out: Path) -> PrepareSettings:
    """The same rows in a few large shards: long enough that every worker gets one and has loaded the checkpoint."""
    rows = sum(part.rows for part in discover(settings.roots[0], settings.image_root))
    return settings.model_copy(update={"out": out, "rows_per_shard": max(1, rows // (2 * settings.workers))})


def timed(settings: PrepareSettings) -> tuple[float, float]:
    """Seconds and bytes of one job in the Ray that runs."""
    start = time.perf_counter()
    manifest = prepare(settings, lambda line: None)
    seconds = time.perf_counter() - start
    assert not manifest.rejected, f"found rows that cannot be used, expected the same work on both sides: {manifest.rejected[:3]}"
    return seconds, size(settings.out)


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report(rows: Rows, found: dict[str, list[tuple[float, float]]], args: argparse.Namespace) -> None:
    """The table of medians."""
    print(f"\n{rows.count} rows: {rows.sides} sides, {rows.pictures} pictures on them; median (lowest - highest) of {args.rounds} rounds")
    print(f"{'way':42}{'rows/s':>8}{'':21}{'ratio':>8}{'bytes/row':>11}")
    rates = {way: sorted(rows.count / seconds for seconds, _ in runs) for way, runs in found.items()}
    base = statistics.median(next(iter(rates.values())))
    for way, own in rates.items():
        middle, spread = statistics.median(own), f"({own[0]:.1f} - {own[-1]:.1f})"
        print(f"{way:42}{middle:8.1f} {spread:20}{middle / base:7.2f}x{found[way][0][1] / rows.count:11,.0f}")
    first, last = (f"ours, {n} workers" for n in (min(args.workers), max(args.workers)))
    gain = statistics.median(rates[last]) / statistics.median(rates[first])
    print(f"from {min(args.workers)} to {max(args.workers)} workers: {gain:.2f}x")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="a folder in MMEB-train's layout")
    parser.add_argument("--checkpoint")
    parser.add_argument("--rows", type=int, default=2000, help="rows chosen, over all subsets")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="ours; the opponent gets the largest")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows-per-shard", type=int, default=128)
    parser.add_argument("--min-pixels", type=int)
    parser.add_argument("--max-pixels", type=int)
    return parser


if __name__ == "__main__":
    main()
