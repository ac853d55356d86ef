"""Resident memory of the shard reader, from ten thousand rows to a million: python -m tests.benchmarks.reader_memory [--rows 10000 ...]

Synthetic rows of about a hundred tokens and a kilobyte of picture bytes, 512 a shard as `prepare` writes them; one shard's file
stands under every shard's name (hard links: a million rows would be two gigabytes of the same). Each size in a fresh process:
growth of memory from before the reader is opened until it has given ten thousand random rows. "Own" is anonymous memory
(RssAnon), which the process cannot give back; "mapped" are pages of shard files (RssFile), which the kernel takes back.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from data_prep.shards import record_path, write_manifest, write_shard
from pipeline.batches.reader import ShardReader

ROWS_PER_SHARD = 512
READ = 10_000


def main(argv: list[str] | None = None) -> None:
    """Measure every size in its own process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    print(f"{'rows':>10}{'shards':>8}{'own MiB, growth':>17}{'mapped MiB, growth':>20}{'seconds to open':>17}{'rows/s':>8}")
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as name:
            shards = write(Path(name), rows)
            words = [sys.executable, "-m", "tests.benchmarks.reader_memory", "--measure", name]
            found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            line = f"{found['own']:17.1f}{found['mapped']:20.1f}{found['opened']:17.2f}{found['rate']:8.0f}"
            print(f"{rows:10,}{shards:8}{line}", flush=True)


def write(folder: Path, rows: int) -> int:
    """A data set of at least `rows` rows; the number of its shards."""
    record = write_shard(folder, "0000-s-000000.arrow", "s", (_row(i) for i in range(ROWS_PER_SHARD)), [])
    shards = -(-rows // ROWS_PER_SHARD)
    records = [record.model_copy(update={"name": f"0000-s-{number:06d}.arrow"}) for number in range(shards)]
    for other in records[1:]:
        os.link(folder / record.name, folder / other.name)
    record_path(folder / record.name).unlink()
    write_manifest(folder, {}, records)
    return shards


def _row(i: int) -> dict:
    noise = np.random.default_rng(i)
    sequence = {"ids": noise.integers(0, 1000, 100, np.int32), "roles": np.zeros(100, np.uint8), "images": [0]}
    image = {"data": noise.bytes(1000), "height": 56, "width": 56}
    return {"id": f"s/{i}", "source": "s", "query": sequence, "positive": sequence | {"images": []}, "negatives": [], "images": [image]}


def measure(folder: Path) -> dict[str, float]:
    """Growth of memory in MiB, seconds to open with all digests checked, and random rows per second."""
    before = resident()
    start = time.perf_counter()
    reader = ShardReader(folder)
    reader.sources()
    opened = time.perf_counter()
    rng = random.Random(0)
    for _ in range(READ):
        reader.row(rng.randrange(len(reader)))
    seconds = time.perf_counter() - opened
    after = resident()
    return {key: after[key] - before[key] for key in before} | {"opened": opened - start, "rate": READ / seconds}


def resident() -> dict[str, float]:
    """MiB of this process by kind."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[field].split()[0]) / 2**10 for name, field in (("own", "RssAnon"), ("mapped", "RssFile"))}


if __name__ == "__main__":
    main()
