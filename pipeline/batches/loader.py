"""One rank's work for one step: rows from the plan, their sequences, packed into chunks, prepared ahead by a thread.

The plan is global and pure; rank r of W takes every W-th row, so that sources and lengths are spread over ranks. Queries come first,
then positives, then hard negatives: `slot` is a sequence's place in that order, and the loss finds everything by it.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_prep.chorus import keep_chorus
from data_prep.encode import EncodedSample
from data_prep.samples import DataError
from data_prep.schema import Role
from data_prep.sequence import TokenSequence, count_answer_tokens
from pipeline.batches.batch import PackedBatch
from pipeline.batches.collate import Collator, Job, lay_out
from pipeline.batches.plan import Mixture, choose, draw, used_rows
from pipeline.batches.reader import ShardReader
from pipeline.batches.shares import shares, table
from pipeline.config import RunConfig


@dataclass(frozen=True)
class RankStep:
    """What one rank runs in one step."""

    chunks: Sequence[PackedBatch]
    """Forward passes; ranks with fewer add blank ones (`StepLoader.blank`). From a loader, they are packed when asked for (`Chunks`)."""
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
    tokens: int
    """Local tokens, each sequence's once."""
    places: int
    """Token places of all chunks, padding included."""
    chorus: int
    """k: chorus tokens of every sequence, the same on all ranks."""
    exhausted: tuple[str, ...] = ()
    """Sources, over all ranks, whose last rows are in this step."""


class Chunks(Sequence[PackedBatch]):
    """The chunks of one step, packed when asked for, since the pixels of them all would fill memory long before the model does.

    Gradient caching goes through them twice and packs each twice. Iterating keeps one chunk ahead in a thread, so that the model does not
    wait; the first one is packed at once (by the loader's own thread, a step ahead) and kept.
    """

    def __init__(self, collator: Collator, rows: list[list[list[Job]]]):
        self._collator, self._rows = collator, rows
        self._first = collator(rows[0])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> PackedBatch:
        return self._collator(self._rows[index]) if index else self._first

    def __iter__(self) -> Iterator[PackedBatch]:
        ready = self._first
        with ThreadPoolExecutor(1) as pool:
            for index in range(1, len(self)):
                pending = pool.submit(self.__getitem__, index)
                yield ready
                ready = pending.result()
            yield ready

    @property
    def places(self) -> int:
        """Token places of all chunks: rows times the widest row's tokens."""
        return sum(len(rows) * max(sum(len(job.sequence) for job in row) for row in rows) for rows in self._rows)


class StepLoader:
    """Prepares steps for one rank.

    Raises:
        DataError: the data has no pairs, has no conversations though the batch asks for some, ends before the run does (data.epochs), or
            a setting names an unknown source.
    """

    def __init__(self, reader: ShardReader, collator: Collator, config: RunConfig, rank: int, world: int):
        self.reader, self.collator, self.config, self.rank, self.world = reader, collator, config, rank, world
        if config.batch.pairs % world:
            raise DataError(f"batch.pairs = {config.batch.pairs} does not divide over {world} ranks; choose a multiple of {world}")
        pairs, conversations = reader.sources()
        data, sources = config.data, pairs + conversations
        for setting in ("weights", "caps", "epochs"):
            _check_names(f"data.{setting}", getattr(data, setting), [source.name for source in sources])
        weights = {s.name: data.weights.get(s.name, used_rows(s, data.caps) ** data.mix_exponent) for s in sources}
        self.pairs = Mixture(pairs, weights, config.batch.sub_batch, config.seed, data.caps, data.epochs)
        self._check_length(self.pairs, self._turns, "pairs")
        wanted = config.batch.conversations
        if wanted and not conversations:
            raise DataError(f"batch.conversations = {wanted}, but the shards hold no conversations; prepare some, or set it to 0")
        self.conversations = Mixture(conversations, weights, 1, config.seed, data.caps, data.epochs) if wanted else None
        if self.conversations:
            self._check_length(self.conversations, wanted, "conversations")

    @property
    def _turns(self) -> int:
        """Turns of the pairs' sources in a step."""
        return self.config.batch.pairs // self.config.batch.sub_batch

    def _check_length(self, mixture: Mixture, turns: int, kind: str) -> None:
        steps = self.config.steps
        if mixture.turns is not None and mixture.turns < turns * steps:
            raise DataError(
                f"data.epochs ends every source of {kind} after {mixture.turns // turns} steps, but the run has {steps}: raise a limit, "
                "leave one source without, or lower steps"
            )

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
        k = self.chorus(number)
        pair_rows = [self._row(row, k) for row in self.pair_rows(number)[self.rank :: self.world]]
        other_rows = [self._row(row, k) for row in self.conversation_rows(number)[self.rank :: self.world]]
        embedded = [row.query for row in pair_rows] + [row.positive for row in pair_rows]
        embedded += [negative for row in pair_rows for negative in row.negatives]
        jobs = [Job(s, slot=slot) for slot, s in enumerate(embedded)]
        for slot, row in enumerate(pair_rows):
            jobs[slot] = Job(row.query, self._compressed(number, row), slot)
        jobs += [Job(row.query, self._compressed(number, row)) for row in other_rows]
        chunks = Chunks(self.collator, self._chunks(jobs))
        return RankStep(
            chunks=chunks,
            pairs=len(pair_rows),
            slots=len(embedded),
            keys=torch.tensor([content_key(s) for s in embedded], dtype=torch.long),
            answer_tokens=sum(count_answer_tokens(job.sequence) for job in jobs),
            rows=len(pair_rows) + len(other_rows),
            tokens=sum(len(job.sequence) for job in jobs),
            places=chunks.places,
            chorus=k,
            exhausted=self.exhausted(number),
        )

    def pair_rows(self, number: int) -> list[int]:
        """Row numbers of the step's pairs, over all ranks."""
        return self.pairs.rows(number * self._turns, self._turns)

    def conversation_rows(self, number: int) -> list[int]:
        """Row numbers of the step's generation-only rows, over all ranks."""
        wanted = self.config.batch.conversations
        return self.conversations.rows(number * wanted, wanted) if self.conversations else []

    def exhausted(self, number: int) -> tuple[str, ...]:
        """Sources whose last rows are in step `number`; the others share their turns from then on."""
        wanted = self.config.batch.conversations
        others = self.conversations.ended(number * wanted, wanted) if self.conversations else []
        return (*self.pairs.ended(number * self._turns, self._turns), *others)

    def plan(self) -> str:
        """What the run takes from each source, as a table."""
        steps = self.config.steps
        found = shares("pairs", self.pairs, self._turns, steps)
        if self.conversations:
            found += shares("conversations", self.conversations, self.config.batch.conversations, steps)
        return table(found, steps)

    def chorus(self, number: int) -> int:
        """k of step `number`, from (seed, step) alone: the same on every rank, on any number of them, and after a resume."""
        sizes = self.config.chorus.elastic or (self.reader.chorus,)
        return choose(sizes, "chorus", self.config.seed, number)

    def blank(self) -> PackedBatch:
        """A chunk that asks for nothing, yet calls every module: what a rank runs while others still have work."""
        return self.collator([])

    def _row(self, number: int, k: int) -> EncodedSample:
        """Row `number` of the data, every sequence of it with its first `k` chorus tokens."""
        row = self.reader.row(number)
        positive = None if row.positive is None else keep_chorus(row.positive, k)
        negatives = tuple(keep_chorus(negative, k) for negative in row.negatives)
        return replace(row, query=keep_chorus(row.query, k), positive=positive, negatives=negatives)

    def _compressed(self, number: int, row: EncodedSample) -> bool:
        """z of CREM, from (seed, step, sample id): the same on any number of ranks."""
        return draw(self.config.loss.compression_probability, self.config.seed, number, row.id)

    def _chunks(self, jobs: list[Job]) -> list[list[list[Job]]]:
        batch = self.config.batch
        chunks = lay_out([len(job.sequence) for job in jobs], batch.row_tokens, batch.chunk_tokens)
        return [[[jobs[i] for i in row] for row in rows] for rows in chunks]


def _check_names(setting: str, named: Collection[str], known: list[str]) -> None:
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise DataError(f"{setting} names {unknown}, which the shards do not have; they have: {', '.join(known)}")


def content_key(sequence: TokenSequence) -> int:
    """A signed 64-bit hash of what a sequence shows up to the end of its chorus: context tokens and image bytes.

    Two targets with equal keys are the same target, whatever row they come from.
    """
    digest = hashlib.blake2b(sequence.ids[sequence.roles == Role.CONTEXT].tobytes(), digest_size=8)
    for image in sequence.images:
        digest.update(image.data)
    return int.from_bytes(digest.digest(), "little", signed=True)
