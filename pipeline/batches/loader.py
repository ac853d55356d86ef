"""One rank's work for one step: rows from the plan, their sequences, packed into chunks, prepared ahead by a thread.

The plan is global and pure; rank r of W takes every W-th row, so that sources and lengths are spread over ranks. Queries come first,
then positives, then hard negatives: `slot` is a sequence's place in that order, and the loss finds everything by it.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from data_prep.encode import EncodedSample, TokenSequence, count_answer_tokens
from data_prep.samples import DataError
from data_prep.schema import Role
from pipeline.batches.batch import PackedBatch
from pipeline.batches.collate import Collator, Job, lay_out
from pipeline.batches.plan import Mixture, draw
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig


@dataclass(frozen=True)
class RankStep:
    """What one rank runs in one step."""

    chunks: list[PackedBatch]
    """Forward passes; ranks with fewer add blank ones (`StepLoader.blank`)."""
    pairs: int
    """B: local pairs. Slots 0 .. B-1 are queries, B .. 2B-1 their positives, the rest hard negatives."""
    slots: int
    """Local embeddings."""
    keys: Tensor
    """int64 [slots] content hash of each slot's sequence."""
    answer_tokens: int
    """Local tokens with a label."""
    rows: int
    """Local samples: pairs and conversations."""


class StepLoader:
    """Prepares steps for one rank.

    Raises:
        DataError: the data has no pairs, has no conversations though the batch asks for some, or a weight names an unknown source.
    """

    def __init__(self, reader: ShardReader, collator: Collator, config: RunConfig, rank: int, world: int):
        self.reader, self.collator, self.config, self.rank, self.world = reader, collator, config, rank, world
        if config.batch.pairs % world:
            raise DataError(f"batch.pairs = {config.batch.pairs} does not divide over {world} ranks; choose a multiple of {world}")
        pairs, conversations = reader.sources()
        unknown = sorted(set(config.data.weights) - {source.name for source in pairs + conversations})
        if unknown:
            known = ", ".join(source.name for source in pairs + conversations)
            raise DataError(f"data.weights names {unknown}, which the shards do not have; they have: {known}")
        weights = {s.name: config.data.weights.get(s.name, s.count**config.data.mix_exponent) for s in pairs + conversations}
        self.pairs = Mixture(pairs, weights, config.batch.sub_batch, config.seed)
        wanted = config.batch.conversations
        self.conversations = Mixture(conversations, weights, 1, config.seed) if wanted and conversations else None
        if wanted and not conversations:
            raise DataError(f"batch.conversations = {wanted}, but the shards hold no conversations; prepare some, or set it to 0")

    def steps(self, first: int, stop: int) -> Iterator[RankStep]:
        """Steps first .. stop-1; the next one is prepared while the current one runs."""
        with ThreadPoolExecutor(1) as pool:
            pending: Future = pool.submit(self.step, first)
            for number in range(first, stop):
                ready = pending.result()
                if number + 1 < stop:
                    pending = pool.submit(self.step, number + 1)
                yield ready

    def step(self, number: int) -> RankStep:
        """Everything this rank runs in step `number`."""
        pair_rows = [self.reader.row(row) for row in self.pair_rows(number)[self.rank :: self.world]]
        other_rows = [self.reader.row(row) for row in self.conversation_rows(number)[self.rank :: self.world]]
        embedded = [row.query for row in pair_rows] + [row.positive for row in pair_rows]
        embedded += [negative for row in pair_rows for negative in row.negatives]
        jobs = [Job(s, slot=slot) for slot, s in enumerate(embedded)]
        for slot, row in enumerate(pair_rows):
            jobs[slot] = Job(row.query, self._compressed(number, row), slot)
        jobs += [Job(row.query, self._compressed(number, row)) for row in other_rows]
        return RankStep(
            chunks=[self.collator(rows) for rows in self._chunks(jobs)],
            pairs=len(pair_rows),
            slots=len(embedded),
            keys=torch.tensor([content_key(s) for s in embedded], dtype=torch.long),
            answer_tokens=sum(count_answer_tokens(job.sequence) for job in jobs),
            rows=len(pair_rows) + len(other_rows),
        )

    def pair_rows(self, number: int) -> list[int]:
        """Row numbers of the step's pairs, over all ranks."""
        turns = self.config.batch.pairs // self.config.batch.sub_batch
        return self.pairs.rows(number * turns, turns)

    def conversation_rows(self, number: int) -> list[int]:
        """Row numbers of the step's generation-only rows, over all ranks."""
        wanted = self.config.batch.conversations
        return self.conversations.rows(number * wanted, wanted) if self.conversations else []

    def blank(self) -> PackedBatch:
        """A chunk that asks for nothing, yet calls every module: what a rank runs while others still have work."""
        return self.collator([])

    def _compressed(self, number: int, row: EncodedSample) -> bool:
        """z of CREM, from (seed, step, sample id): the same on any number of ranks."""
        return draw(self.config.loss.compression_probability, self.config.seed, number, row.id)

    def _chunks(self, jobs: list[Job]) -> list[list[list[Job]]]:
        batch = self.config.batch
        chunks = lay_out([len(job.sequence) for job in jobs], batch.row_tokens, batch.chunk_tokens)
        return [[[jobs[i] for i in row] for row in rows] for rows in chunks]


def content_key(sequence: TokenSequence) -> int:
    """A signed 64-bit hash of what a sequence shows up to the end of its chorus: context tokens and image bytes.

    Two targets with equal keys are the same target, whatever row they come from.
    """
    digest = hashlib.blake2b(sequence.ids[sequence.roles == Role.CONTEXT].tobytes(), digest_size=8)
    for image in sequence.images:
        digest.update(image.data)
    return int.from_bytes(digest.digest(), "little", signed=True)
