"""Precision and answer loss on rows that are not trained on, through the training engine's own forward.

Two sweeps over the same rows, without gradient, in evaluation mode (no dropout): one embeds every query and target and reads answers with
the context in sight (z = 0), one reads the answers from the chorus alone (z = 1). Every rank runs the same number of forwards, with blank
chunks where it has fewer, so ZeRO-3's collectives match. Nothing of training is touched: weights and optimizer only read, and torch's
generators belong to the training step, which seeds them before every forward.

Shapes: B local pairs, G pairs of all ranks, S local slots, D hidden.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat

import torch
from torch import Tensor

from data_prep.chorus import keep_chorus
from data_prep.encode import Encoder
from data_prep.samples import DataError
from data_prep.sequence import count_answer_tokens
from data_prep.shards import verify_shards
from pipeline import comm
from pipeline.batches.batch import PackedBatch
from pipeline.batches.collate import Collator, Job, lay_out
from pipeline.batches.loader import Chunks, content_key
from pipeline.batches.plan import SourceRows
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig
from pipeline.losses.contrastive import ContrastiveInputs, info_nce


@dataclass(frozen=True)
class HeldOutResult:
    """What one look found, over all ranks. Parts without rows are None."""

    p_at_1: float | None
    """Share of queries that score their own target highest among the targets of all held-out pairs (duplicates of it left out)."""
    by_source: dict[str, float]
    """The same by source, against the same targets."""
    native: float | None
    """Answer loss in nats a token, the context in sight."""
    compressed: float | None
    """Answer loss in nats a token, from the chorus alone."""
    seconds: float
    """What the look took."""

    def metrics(self) -> dict[str, float]:
        """Names as they are recorded."""
        values = {"held_out/p_at_1": self.p_at_1, "held_out/answer_loss_native": self.native}
        values["held_out/answer_loss_compressed"] = self.compressed
        values |= {f"held_out/p_at_1_of/{source}": share for source, share in self.by_source.items()} | {"held_out/seconds": self.seconds}
        return {name: value for name, value in values.items() if value is not None}

    def in_words(self) -> str:
        """For the log."""
        told = [("P@1 {:.2f}", self.p_at_1), ("answer loss {:.3f} native", self.native), ("{:.3f} compressed", self.compressed)]
        return f"held out: {', '.join(words.format(value) for words, value in told if value is not None)} ({self.seconds:.0f} s)"


def open_rows(config: RunConfig, encoder: Encoder, training_digest: str) -> ShardReader | None:
    """The held-out shards, checked like training shards (not collective); None where none are named.

    Raises:
        DataError: they are unfinished, altered, made for another checkpoint, or the training data themselves.
    """
    if config.evaluate.shards is None:
        return None
    reader = ShardReader(config.evaluate.shards, encoder, verify=False)
    if reader.manifest.digest() == training_digest:
        raise DataError(
            f"evaluate.shards: found the training data themselves in {config.evaluate.shards}; expected rows that are not trained on. "
            "Make two folders of one with `python -m data_prep split`"
        )
    if config.data.verify:
        verify_shards(config.evaluate.shards, reader.manifest, part=comm.rank(), parts=comm.world_size())
    return reader


def spaced(sources: Sequence[SourceRows], wanted: int) -> list[int]:
    """At most `wanted` row numbers, evenly spaced over the sources laid end to end: each in proportion to its rows."""
    rows = [range(source.first, source.first + source.count) for source in sources]
    total = sum(map(len, rows))
    places = [i * total // wanted for i in range(wanted)] if total > wanted else range(total)
    flat = list(chain(*rows))
    return [flat[place] for place in places]


class HeldOut:
    """One rank's share of the held-out rows: every W-th of them."""

    def __init__(self, reader: ShardReader, collator: Collator, config: RunConfig, rank: int, world: int):
        self.collator, self.config, self.rank = collator, config, rank
        self._k = max(config.chorus.elastic, default=reader.chorus)
        pairs, conversations = reader.sources()
        self.sources = [source.name for source in pairs]
        self._pairs = [reader.row(number) for number in spaced(pairs, config.evaluate.rows)[rank::world]]
        self._others = [reader.row(number) for number in spaced(conversations, config.evaluate.rows)[rank::world]]

    def due(self, done: int) -> bool:
        """Whether a look follows after `done` steps."""
        return done % self.config.evaluate.every == 0 or done == self.config.last_step

    def measure(self, engine, device: torch.device) -> HeldOutResult:
        """Look (collective). `engine`: `step.Trainable` with a `model`, whose mode is set to evaluation and back."""
        start = time.perf_counter()
        embedded = [row.query for row in self._pairs] + [row.positive for row in self._pairs]
        native = [Job(keep_chorus(s, self._k), slot=slot) for slot, s in enumerate(embedded)]
        native += [Job(keep_chorus(row.query, self._k)) for row in self._others]
        compressed = [Job(job.sequence, compressed=True) for job in native if count_answer_tokens(job.sequence)]
        engine.model.eval()
        try:
            with torch.no_grad():
                embeddings_SD, native_sum = self._sweep(engine, native, device)
                _, compressed_sum = self._sweep(engine, compressed, device)
        finally:
            engine.model.train()
        answers = float(sum(count_answer_tokens(job.sequence) for job in compressed))
        native_sum, compressed_sum, answers = comm.sum_numbers([native_sum, compressed_sum, answers])
        p_at_1, by_source = self._precision(embeddings_SD, native)
        return HeldOutResult(
            p_at_1=p_at_1,
            by_source=by_source,
            native=native_sum / answers if answers else None,
            compressed=compressed_sum / answers if answers else None,
            seconds=time.perf_counter() - start,
        )

    def _sweep(self, engine, jobs: list[Job], device: torch.device) -> tuple[Tensor, float]:
        """Run all jobs; embeddings of those with a slot in slot order, [S, D], and the sum of answer losses (collective)."""
        batch = self.config.batch
        chunks = lay_out([len(job.sequence) for job in jobs], batch.row_tokens, batch.chunk_tokens)
        own = Chunks(self.collator, [[[jobs[i] for i in row] for row in rows] for rows in chunks]) if chunks else []
        slots, embeddings, loss = [], [], 0.0
        for chunk in self._filled(own, comm.max_int(len(own))):
            chunk_SD, loss_N, *_ = engine.forward(chunk.to(device))
            needed = chunk.embedding_slots >= 0
            slots.append(chunk.embedding_slots[needed])
            embeddings.append(chunk_SD[needed.to(chunk_SD.device)])
            loss += float(loss_N.sum())
        if not slots:
            return torch.zeros((0, 1), device=device), 0.0
        return torch.cat(embeddings)[torch.cat(slots).argsort().to(device)], loss

    def _filled(self, chunks: Sequence[PackedBatch], count: int) -> Iterator[PackedBatch]:
        """The chunks, one at a time, then blank ones up to `count`."""
        return islice(chain(chunks, repeat(self.collator([]))), count)

    def _precision(self, embeddings_SD: Tensor, jobs: list[Job]) -> tuple[float | None, dict[str, float]]:
        """P@1 over all pairs, and by source (collective)."""
        if not self.sources:
            return None, {}
        pairs = len(self._pairs)
        keys_S = torch.tensor([content_key(job.sequence) for job in jobs[: 2 * pairs]], dtype=torch.long, device=embeddings_SD.device)
        queries_GD, sizes = comm.gather_rows(embeddings_SD[:pairs])
        targets_GD, query_keys_G, target_keys_G = (comm.gather_rows(x)[0] for x in (embeddings_SD[pairs:], keys_S[:pairs], keys_S[pairs:]))
        first = sum(sizes[: self.rank])
        sums = []
        for source in self.sources:
            own = [first + i for i, row in enumerate(self._pairs) if row.source == source]
            local_B = torch.tensor(own, dtype=torch.long, device=queries_GD.device)
            inputs = ContrastiveInputs(queries_GD, targets_GD, query_keys_G, target_keys_G, local_B)
            sums += [float(len(own)), float(info_nce(inputs, temperature=1.0).correct) if own else 0.0]
        sums = comm.sum_numbers(sums)
        counts, correct = sums[0::2], sums[1::2]
        by_source = {name: right / count for name, count, right in zip(self.sources, counts, correct, strict=True) if count}
        return sum(correct) / sum(counts), by_source
