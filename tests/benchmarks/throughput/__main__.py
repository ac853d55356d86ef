"""Training throughput against opponents and against the ceiling, in one run: python -m tests.benchmarks.throughput [MMEB_TRAIN_FOLDER]

All cases work on the same pairs (a picture with words, and a text; without a folder those of the embedded data set), the same random
checkpoint and the same batch, each in a fresh process. Every round runs all of them in turn; ratios are taken within a round, and the
table shows the median over rounds.

    padded            a CREM step as one writes it first: three padded forwards, all logits, processor in the collate function
    sentence-t.       the library's own recipe, retrieval alone: it learns no answers, so it has less to do for a pair
    trainer           this project's loader, engine and step under DeepSpeed; both losses
    model alone       forward and backward on the trainer's own numbers of tokens, patches and answers, without padding, data and optimizer
    bare DeepSpeed    the same tokens through a minimal DeepSpeed loop

    pairs/s, tokens/s  tokens are those that go through the language model: padded sends every query through it twice
    waits              share of a step in which the trainer waited for data
    others             cores that other processes kept busy meanwhile; a * marks cases with more than 0.2, whose figures mean little alone

--per-cpu counts seconds of the process's own CPU time: on a busy machine, with --threads 1 and one rank, what is left of the truth.

--profile says instead where a trainer's step spends its time.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from pipeline.config import BatchSettings, ModelSettings
from tests.benchmarks.throughput.cases import CEILING, PADDED, SENTENCE, in_fresh_processes, names
from tests.benchmarks.throughput.others import CONTENDED
from tests.benchmarks.throughput.task import SIZES, Task, write_task


def main(argv: list[str] | None = None) -> None:
    """Write the task, run the rounds, print the table."""
    args = parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            folder=folder,
            batch=args.batch,
            steps=args.steps,
            warmup=args.warmup,
            max_pixels=args.max_pixels,
            threads=args.threads,
            attention=args.attention,
            row_tokens=args.row_tokens,
            chunk_tokens=args.chunk_tokens,
        )
        write_task(task, args.data, args.rows, args.size)
        if args.profile:
            from tests.benchmarks.throughput.profile import profile

            print("\n".join(profile(task, args.stages[0])))
            return
        rounds = []
        for number in range(args.rounds):
            rounds.append({name: in_fresh_processes(name, task) for name in names(args.stages, args.ranks, args.bf16)})
            print("\n".join(table(rounds, "_per_cpu" if args.per_cpu else "")), flush=True)
            unit = ", per CPU second" if args.per_cpu else ""
            print(
                f"{number + 1} of {args.rounds} rounds, {args.size} parameters, batch {args.batch}, {args.threads} threads{unit}\n",
                flush=True,
            )


def table(rounds: list[dict[str, dict[str, float]]], unit: str = "") -> list[str]:
    """Medians over rounds, ratios within them.

    Args:
        rounds: results by case (`clock.Clock.result`, and "others").
        unit: "" for wall time, "_per_cpu" for the process's own.
    """
    pairs, tokens = f"pairs{unit}", f"tokens{unit}"
    head = f"{'case':34}{'pairs/s':>9}{'(low - high)':>16}{'tokens/s':>10}{'padding':>9}{'waits':>7}{'cpu':>6}{'others':>8}"
    out = [head + f"{'x padded':>11}{'x sent.-t.':>11}{'of ceiling':>11}"]
    for name in rounds[0]:
        runs = [found[name] for found in rounds]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        span = f"({min(run[pairs] for run in runs):.1f} - {max(run[pairs] for run in runs):.1f})"
        others = f"{middle['others']:.2f}" + ("*" if any(run["others"] > CONTENDED for run in runs) else " ")
        own = f"{middle['padding']:9.1%}{middle['waited']:7.1%}{middle['cpu']:6.2f}{others:>8}"
        against = "".join(f"{ratio(rounds, name, base, pairs):10.2f}x" for base in (PADDED, SENTENCE))
        share = f"{ratio(rounds, name, CEILING, tokens):11.1%}" if name.startswith(("trainer", "bare")) else ""
        out.append(f"{name:34}{middle[pairs]:9.1f}{span:>16}{middle[tokens]:10.0f}{own}{against}{share}")
    return out


def ratio(rounds: list[dict[str, dict[str, float]]], name: str, base: str, key: str) -> float:
    """Median over rounds of one case's rate over another's in the same round."""
    return statistics.median(found[name][key] / found[base][key] for found in rounds)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    out.add_argument("data", nargs="?", type=Path, help="a folder in MMEB-train's layout")
    out.add_argument("--rounds", type=int, default=3)
    out.add_argument("--batch", type=int, default=64, help="pairs of a step")
    out.add_argument("--steps", type=int, default=5, help="timed steps of every case")
    out.add_argument("--warmup", type=int, default=2)
    out.add_argument("--rows", type=int, default=2000, help="pairs to draw from")
    out.add_argument("--size", choices=list(SIZES), default="5M", help="parameters of the random checkpoint")
    out.add_argument("--max-pixels", type=int, default=256 * 28 * 28, help="image budget; 784 pixels are one token")
    out.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, over all ranks")
    out.add_argument("--stages", type=int, nargs="+", default=[1, 3], help="ZeRO stages")
    out.add_argument("--ranks", type=int, default=min(2, os.cpu_count()), help="more than 1: the trainer on so many ranks as well")
    out.add_argument("--bf16", action="store_true", help="the trainer in bfloat16 as well")
    attention = ModelSettings.model_fields["attention"].annotation.__args__
    out.add_argument("--attention", choices=attention, default="two_causal", help="the trainer's")
    out.add_argument("--row-tokens", type=int, default=BatchSettings().row_tokens)
    out.add_argument("--chunk-tokens", type=int, default=2**16, help="of one forward; fewer than a step's: gradient caching")
    out.add_argument("--per-cpu", action="store_true")
    out.add_argument("--profile", action="store_true")
    return out


if __name__ == "__main__":
    main()
