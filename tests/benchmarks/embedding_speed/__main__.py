"""Embeddings a second beside sentence-transformers' `encode`, in one run: python -m tests.benchmarks.embedding_speed [MMEB_EVAL_FOLDER]

The same weights, the same words and files of pictures, from the file to the vector; all ways in turn, medians over rounds, ratios within
them. Without a folder: the quickstart's. Without --checkpoint: random weights with a vocabulary of the data's words.

    sentence-t., row by row       a query with its candidates at a time, as one calls it; of the tried batch sizes the best
    sentence-t., distinct         each distinct side once
    ours, order as given, padded  each distinct side once, one sequence a row, batches of the token budget
    ours, head in every sequence  longest first and packed, but what all prompts begin with is run for every one
    ours, every occurrence        longest first and packed, the head once, duplicates run again
    ours, all at once             longest first and packed, the head once, each distinct side once
    ours, as evaluated            the same in the evaluation's units, which are computed alone (`evaluate.units`); planning them included

    sides/s      vectors that the rows ask for (queries and candidates, duplicates and all) over the time it took
    encodings/s  sides that went through the model over that time
    others       cores that other processes kept busy; a * marks what was contended

Duplicates of a real set lie far apart: its rows name many times more sides than distinct ones, which the first line says, but the few rows
that are timed have hardly any. --sets with a set of few labels, and more --rows and --candidates, show what encoding once is worth.

All vectors must agree to 1e-4. --per-cpu counts the process's own CPU seconds: on a busy machine, with --threads 1, what is left of
the truth.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from data_prep.encode import Encoder, EncodeSettings
from data_prep.sources.mmeb_eval import load_sets
from pipeline.allocator import keep_freed_memory
from pipeline.evaluate.open import open_checkpoint
from pipeline.evaluate.protocols import MMEB_IMAGE_TOKENS
from tests.benchmarks.compression.tables import Runs, ratio
from tests.benchmarks.embedding_speed.sentence import item, open_sentence
from tests.benchmarks.embedding_speed.task import Task, duplication, make_task, write_checkpoint
from tests.benchmarks.embedding_speed.ways import ALL, EVERY, GIVEN, LIBRARY, LIBRARY_ROWS, NO_HEAD, OURS, encodings, ways
from tests.benchmarks.throughput.others import CONTENDED, Others
from tests.benchmarks.throughput.task import SIZES

EQUAL = 1e-4
"""Largest difference of two ways' vectors."""
GOAL = 1.3
TRIED = 192
"""Distinct sides on which the library's batch size is chosen."""


def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns 1 where vectors disagree."""
    args = parser().parse_args(argv)
    keep_freed_memory()  # as the evaluation does, and on all sides alike
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.per_cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        sets = [one for one in load_sets(args.data) if not args.sets or one.name in args.sets]
        if not sets:
            raise SystemExit(f"{args.data}: found none of the sets {', '.join(args.sets)}; expected names of its folders")
        task = make_task(sets, args.rows, args.candidates, folder / "pictures")
        checkpoint = args.checkpoint or write_checkpoint(args.size, task.distinct, folder)
        encoder = Encoder(checkpoint, EncodeSettings(max_tokens=32768)).with_image_tokens(None, MMEB_IMAGE_TOKENS)
        opened, library = open_checkpoint(checkpoint, encoder, "cpu"), open_sentence(Path(checkpoint), encoder, folder / "library")
        batch = best_batch(library, task, args.batches, clock)
        named, distinct = duplication(sets)
        here = f"{len(task.sides)} of {len(task.rows)} rows, {len(task.distinct)} distinct"
        print(f"{args.data}: {named} sides, {distinct} distinct; here {here}")
        unit = "CPU seconds" if args.per_cpu else "wall time"
        print(f"{unit}, {args.threads} threads, {args.rounds} rounds; sentence-t. in batches of {batch}\n", flush=True)
        found, apart = rounds(ways(opened, encoder, library, batch, task), args.rounds, clock)
        print("\n".join([*table(found, task), "", *told(found), "", f"largest difference between two vectors of a side: {apart:.1e}"]))
    return int(apart > EQUAL)


def best_batch(library: SentenceTransformer, task: Task, sizes: list[int], clock: Callable[[], float]) -> int:
    """The library's fastest batch size, each tried on the same sides after a warm-up."""
    step = max(1, len(task.distinct) // TRIED)
    items = [item(side) for side in task.distinct[::step]][:TRIED]
    library.encode(items[:16], show_progress_bar=False)
    taken = {}
    for size in sizes:
        start = clock()
        library.encode(items, batch_size=size, show_progress_bar=False)
        taken[size] = clock() - start
    return min(taken, key=taken.get)


def rounds(cases: dict[str, Callable[[], np.ndarray]], count: int, clock: Callable[[], float]) -> tuple[list[Runs], float]:
    """All ways in turn, `count` times: {way: {"seconds", "rate" (1 / seconds), "others"}}, and how far vectors lie apart at most."""
    out, apart, first = [], 0.0, None
    for _ in range(count):
        out.append({})
        for name, way in cases.items():
            meanwhile, start = Others(), clock()
            vectors = way()
            seconds = clock() - start
            out[-1][name] = {"seconds": seconds, "rate": 1 / seconds, "others": meanwhile.cores()}
            first = vectors if first is None else first
            apart = max(apart, float(np.abs(vectors - first).max()))
    return out, apart


def table(found: list[Runs], task: Task) -> list[str]:
    """A line for each way."""
    out = [
        f"{'way':30}{'encoded':>9}{'sides/s':>9}{'(low - high)':>18}{'encodings/s':>13}{'x row by row':>14}{'x distinct':>12}{'others':>8}"
    ]
    for way in found[0]:
        runs, encoded = [each[way] for each in found], encodings(way, task)
        rates = sorted(len(task.sides) * run["rate"] for run in runs)
        middle = statistics.median(rates)
        busy = statistics.median(run["others"] for run in runs)
        mark = "*" if any(run["others"] > CONTENDED for run in runs) else " "
        ratios = f"{ratio(found, way, LIBRARY_ROWS, 'rate'):13.2f}x{ratio(found, way, LIBRARY, 'rate'):11.2f}x"
        span = f"({rates[0]:.1f} - {rates[-1]:.1f})"
        out.append(f"{way:30}{encoded:9}{middle:9.1f}{span:>18}{middle * encoded / len(task.sides):13.1f}{ratios}{busy:7.2f}{mark}")
    return out


def told(found: list[Runs]) -> Iterator[str]:
    """What each part is worth, and the goal."""
    parts = {"each distinct side once": EVERY, "the head once": NO_HEAD, "longest first, packed": GIVEN}
    yield "worth: " + ", ".join(f"{part} {ratio(found, ALL, without, 'rate'):.2f}x" for part, without in parts.items())
    for words, other in (("as one calls it", LIBRARY_ROWS), ("on distinct sides", LIBRARY)):
        reached = ratio(found, OURS, other, "rate")
        yield f"{'met   ' if reached >= GOAL else 'MISSED'}  {GOAL} times sentence-transformers {words}: {reached:.2f}x"


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    out.add_argument("data", nargs="?", type=Path, default=Path("work/data/MMEB-eval"), help="a folder in MMEB-eval's layout")
    out.add_argument("--sets", nargs="+", default=[], help="of these sets alone, by name")
    out.add_argument("--checkpoint", help="a folder with chorus tokens, in place of random weights")
    out.add_argument("--size", choices=list(SIZES), default="5M", help="parameters of the random checkpoint")
    out.add_argument("--rows", type=int, default=8, help="rows of every set")
    out.add_argument("--candidates", type=int, default=15, help="candidates of a row, at most")
    out.add_argument("--rounds", type=int, default=3)
    out.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64], help="tried with sentence-transformers")
    out.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    out.add_argument("--per-cpu", action="store_true")
    return out


if __name__ == "__main__":
    raise SystemExit(main())
