"""How much of a step is padding, packed and not: python -m tests.benchmarks.padding SHARDS CHECKPOINT [--recipe R] [--steps N] [--ranks W]

Reads the token counts of the first steps of a recipe on prepared shards, as every rank would get them, and lays them out twice: in packed
rows, as training does, and as usual in rows of one sequence, each chunk (of the same number of places) padded to its longest. Prints the
share of places that hold padding, over all ranks and steps together, tokens a step, and the longest sequence. Words after these go to the
recipe: --batch.row-tokens 512. Rows of several times the usual sequence leave little padding; what they cost under the dense mask
(tests.benchmarks.attention), model.attention = two_causal spares.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from data_prep.encode import Encoder
from pipeline.batches.collate import lay_out
from pipeline.batches.loader import StepLoader
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig
from pipeline.train.cli import parse


def main(argv: list[str] | None = None) -> None:
    """Print both shares, and the worst packed step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=2)
    args, overrides = parser.parse_known_args(argv)
    config = parse([args.recipe, "--data.shards", str(args.shards), *overrides]).config
    tokens, packed, padded, longest, worst = 0, 0, 0, 0, 0.0
    for lengths_of_ranks in step_lengths(config, ShardReader(args.shards, Encoder(args.checkpoint)), args.steps, args.ranks):
        own = sum(map(sum, lengths_of_ranks))
        places = sum(packed_places(lengths, config) for lengths in lengths_of_ranks)
        tokens, packed, worst = tokens + own, packed + places, max(worst, 1 - own / places)
        longest = max(longest, *map(max, lengths_of_ranks))
        padded += sum(padded_places(lengths, config.batch.chunk_tokens) for lengths in lengths_of_ranks)
    size = f"rows of {config.batch.row_tokens} in chunks of {config.batch.chunk_tokens}"
    print(f"{args.recipe}: {args.steps} steps, {args.ranks} ranks, {tokens:,} tokens; {size}")
    print(f"tokens a step, all ranks:         {tokens // args.steps:,}   (longest sequence {longest})")
    print(f"padding, packed rows:             {100 * (1 - tokens / packed):5.2f} %   (worst step {100 * worst:.2f} %)")
    print(f"padding, one sequence a row:      {100 * (1 - tokens / padded):5.2f} %")


def step_lengths(config: RunConfig, reader: ShardReader, steps: int, ranks: int) -> Iterator[list[list[int]]]:
    """Tokens of every sequence, by rank, of each step."""
    loaders = [StepLoader(reader, None, config, rank, ranks) for rank in range(ranks)]  # nothing is collated here
    for number in range(steps):
        yield [[len(sequence) for sequence in _sequences(loader, number)] for loader in loaders]


def _sequences(loader: StepLoader, number: int) -> Iterator:
    for row in loader.pair_rows(number)[loader.rank :: loader.world]:
        sample = loader.reader.row(row)
        yield from (sample.query, sample.positive, *sample.negatives)
    for row in loader.conversation_rows(number)[loader.rank :: loader.world]:
        yield loader.reader.row(row).query


def packed_places(lengths: list[int], config: RunConfig) -> int:
    """Places of all chunks, each as wide as its widest row."""
    chunks = lay_out(lengths, config.batch.row_tokens, config.batch.chunk_tokens)
    return sum(len(rows) * max(sum(lengths[i] for i in row) for row in rows) for rows in chunks)


def padded_places(lengths: list[int], chunk_tokens: int) -> int:
    """The same, one sequence a row, chunks filled in order."""
    places, rows, width = 0, 0, 0
    for length in lengths:
        if rows and (rows + 1) * max(width, length) > chunk_tokens:
            places, rows, width = places + rows * width, 0, 0
        rows, width = rows + 1, max(width, length)
    return places + rows * width


if __name__ == "__main__":
    main()
