"""What compression buys when questions are answered, in one run: python -m tests.benchmarks.compression [--checkpoint DIR]

The same prompts and weights, the same number of decoded tokens (no answer ends early), in turns; medians over rounds, ratios within them.

    Hugging Face generate   the stock model's own; its prompt holds the chorus as well, so it must decode the tokens of ours, native
    ours, native            the whole prefix stays in the cache
    ours, compressed        the picture is read, then only the chorus's keys and values are kept
    ours, stored chorus     these, read from a file (which the system has in memory), without the picture

    first token   from token ids and pixels in memory, or from the file's path, to the first token's logits
    cache         of the prefix alone; that the kept share is K / prefix length exactly is checked in every run
    same tokens   native: as generate's; stored: as compressed; less than 100 %: rounding has decided between two tokens
    others        cores that other processes kept busy meanwhile; a * marks what was contended, whose figures mean little

Then native against compressed decoding after texts of several lengths. Without --checkpoint: random weights; 24M takes
several times as long as 5M.
--per-cpu counts the process's own CPU seconds: with --threads 1 on a busy machine, what is left of the truth.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText

from pipeline.allocator import keep_freed_memory
from tests.benchmarks.compression.prompts import open_model, write_checkpoint, write_prompts
from tests.benchmarks.compression.tables import Runs, main_table, share_line, sweep_table, verdicts
from tests.benchmarks.compression.ways import COMPRESSED, HUGGING_FACE, NATIVE, STORED, Timing, swept, ways
from tests.benchmarks.throughput.others import Others
from tests.benchmarks.throughput.task import SIZES

WARM_UP = 3
"""Tokens that everything decodes once before the first round."""


def main(argv: list[str] | None = None) -> None:
    """Measure every checkpoint and print its tables."""
    args = parser().parse_args(argv)
    keep_freed_memory()  # as the evaluation does, and on all sides alike
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name in [args.checkpoint] if args.checkpoint else args.sizes:
            for line in measure(name if args.checkpoint else write_checkpoint(name, Path(folder)), args, Path(folder)):
                print(line, flush=True)


def measure(checkpoint: str | Path, args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """One checkpoint's tables, each as soon as it is measured."""
    clock = time.process_time if args.per_cpu else time.perf_counter
    model = open_model(checkpoint, args.image_tokens)
    opened, like = model.opened, next(model.opened.model.parameters())
    stock = AutoModelForImageTextToText.from_pretrained(str(checkpoint), dtype=like.dtype, attn_implementation="sdpa", use_safetensors=True)
    stock = stock.to(like.device).eval()
    batches = {batch: write_prompts(model, batch, args.image_tokens, folder) for batch in args.batches}
    parameters = sum(weight.numel() for weight in opened.model.parameters())
    yield (
        f"{parameters / 1e6:.1f} M parameters, {like.dtype}, {like.device.type}, {args.threads} threads; {args.new_tokens} tokens decoded, "
        f"{args.rounds} rounds{', CPU seconds' if args.per_cpu else ''}; {share_line(model.chorus, next(iter(batches.values())).prefix)}"
    )
    found = {b: rounds(ways(opened, stock, prompts, clock), args.new_tokens, args.rounds) for b, prompts in batches.items()}
    yield from (*main_table(found), "")
    sweep = {
        (prefix, batch): rounds(swept(opened, prefix, batch, clock), args.new_tokens, args.rounds)
        for prefix in args.prefixes
        for batch in args.batches
    }
    if sweep:
        yield from (*sweep_table(sweep), "")
    yield from (*verdicts(found, sweep), "")


def rounds(cases: dict[str, Callable[[int], Timing]], new_tokens: int, count: int) -> list[Runs]:
    """All ways in turn, `count` times, after a short run of each."""
    for way in cases.values():
        way(WARM_UP)
    out = []
    for _ in range(count):
        others, timings = {}, {}
        for name, way in cases.items():
            meanwhile = Others()
            timings[name] = way(new_tokens)
            others[name] = meanwhile.cores()
        out.append({name: _run(name, timings) | {"others": others[name]} for name in cases})
    return out


def _run(name: str, timings: dict[str, Timing]) -> dict[str, float]:
    """One way's figures, its tokens beside those of the way that it must agree with."""
    own = timings[name]
    model = timings.get({NATIVE: HUGGING_FACE, STORED: COMPRESSED}.get(name, name), own)
    same = float((own.tokens == model.tokens).float().mean())
    return {"first": own.first, "rate": own.rate, "bytes": own.cache_bytes, "same": same}


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    out.add_argument("--checkpoint", help="a folder or hub id with chorus tokens, in place of random weights")
    out.add_argument("--sizes", choices=list(SIZES), nargs="+", default=["5M"], help="of the random checkpoints")
    out.add_argument("--image-tokens", type=int, default=1000, help="at most; the picture is nearly square")
    out.add_argument("--new-tokens", type=int, default=64)
    out.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    out.add_argument(
        "--prefixes", type=int, nargs="*", default=[128, 512, 1024, 2048, 4096], help="of the sweep, in tokens; none: no sweep"
    )
    out.add_argument("--rounds", type=int, default=3)
    out.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    out.add_argument("--per-cpu", action="store_true")
    return out


if __name__ == "__main__":
    main()
