"""A query against a million candidates: time and memory of `pipeline.evaluate.search`, beside the plain matrix product.

    python -m tests.benchmarks.candidate_scoring [--sizes 100000 1000000] [--width 1536] [--kind float16]

Unit vectors in a file in a temporary folder (a million of width 1,536 in float16: 3 GB). Each case in a fresh process: peak resident memory
(VmHWM: its own and the mapped pages of the file that are in use) less what numpy and the project take before anything is read. The plain
product, run for the smallest size only, holds all vectors in float32 and all scores. Queries are candidates with noise, so each has a true
one; where both are run, the k best and the ranks must be the same. The file is read once before the clock starts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.evaluate.search import search
from tests.benchmarks.throughput.others import CONTENDED, Others

K = 10
PLAIN, OURS = "plain product", "search"
STEP = 2**14


def main(argv: list[str] | None = None) -> int:
    """Measure every size and print a line for each case; returns 1 where the two disagree."""
    args = parser().parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args.measure, args.way, args.queries[0])))
        return 0
    print(f"{'way':14}{'candidates':>12}{'file MiB':>10}{'queries':>9}{'ms a query':>12}{'seconds':>9}{'peak MiB':>10}{'others':>8}")
    same = True
    for size in sorted(args.sizes):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "vectors.npy"
            write(path, size, args.width, args.kind)
            for queries in args.queries:
                found = {way: case(path, way, queries) for way in ((PLAIN, OURS) if size == min(args.sizes) else (OURS,))}
                for way, run in found.items():
                    file = path.stat().st_size / 2**20
                    mark = "*" if run["others"] > CONTENDED else " "
                    rate = f"{1000 * run['seconds'] / queries:12.2f}{run['seconds']:9.2f}"
                    print(f"{way:14}{size:12,}{file:10.0f}{queries:9}{rate}{run['peak']:10.0f}{run['others']:7.2f}{mark}", flush=True)
                same &= len({json.dumps(run["found"]) for run in found.values()}) == 1
    print(f"width {args.width}, {args.kind}, k = {K}, with ranks; both ways found {'the same' if same else 'DIFFERENT THINGS'}")
    return int(not same)


def write(path: Path, size: int, width: int, kind: str) -> None:
    """Unit vectors: one block of noise, its columns turned on by one for every further block, so that no two are alike."""
    random = np.random.default_rng(0)
    block = random.normal(size=(STEP, width)).astype(np.float32)
    block = (block / np.linalg.norm(block, axis=1, keepdims=True)).astype(kind)
    file = np.lib.format.open_memmap(path, "w+", block.dtype, (size, width))
    for number, start in enumerate(range(0, size, STEP)):
        file[start : start + STEP] = np.roll(block, number, axis=1)[: size - start]
    file.flush()


def case(path: Path, way: str, queries: int) -> dict:
    """One way in a fresh process."""
    words = [sys.executable, "-m", "tests.benchmarks.candidate_scoring", "--measure", str(path), "--way", way, "--queries", str(queries)]
    others = Others()
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"others": others.cores()}


def measure(path: Path, way: str, queries: int) -> dict:
    """Seconds (a pass, after the file was read once), growth of peak memory in MiB, and what was found."""
    with path.open("rb") as file:
        while file.read(2**24):
            pass
    before = peak()
    vectors_ND = np.load(path, mmap_mode="r")
    random = np.random.default_rng(1)
    truth_Q = np.sort(random.choice(len(vectors_ND), queries, replace=False))
    noise_QD = random.normal(size=(queries, vectors_ND.shape[1])).astype(np.float32) / vectors_ND.shape[1] ** 0.5
    queries_QD = np.array(vectors_ND[truth_Q], np.float32) + 4 * noise_QD
    start = time.perf_counter()
    if way == OURS:
        found = search(queries_QD, vectors_ND, K, truth_Q)
        numbers, rank, strict = found.numbers, found.rank, found.strict_rank
    else:
        scores_QN = queries_QD @ np.array(vectors_ND, np.float32).T
        own_Q1 = np.take_along_axis(scores_QN, truth_Q[:, None], axis=1)
        numbers = np.argsort(-scores_QN, axis=1, kind="stable")[:, :K]
        strict = (scores_QN >= own_Q1).sum(axis=1)
        rank = 1 + (scores_QN > own_Q1).sum(axis=1) + [int((row[:t] == row[t]).sum()) for row, t in zip(scores_QN, truth_Q, strict=True)]
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": peak() - before, "found": [array.tolist() for array in (numbers, rank, strict)]}


def peak() -> float:
    """Highest resident memory of this process so far, in MiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 2**10


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    out.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000], help="candidates")
    out.add_argument("--width", type=int, default=1536, help="of a vector; 1,536 is that of a backbone of 2 B parameters")
    out.add_argument("--kind", choices=["float16", "float32"], default="float16", help="of the file")
    out.add_argument("--queries", type=int, nargs="+", default=[1, 64], help="searched at a time")
    out.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    out.add_argument("--way", help=argparse.SUPPRESS)
    return out


if __name__ == "__main__":
    raise SystemExit(main())
