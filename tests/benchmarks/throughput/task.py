"""What every case of the benchmark works on: one checkpoint, the same pairs in the same order, written once into a folder.

A pair has a picture (and perhaps words) on one side and a text on the other. The trainer also learns to answer: the question is fixed,
the answer is the text. So a pair costs the trainer two sequences, query with answer, and target, and the padded reference three.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.embedded import corpus, write_embedded
from data_prep.encode import Encoder, EncodeSettings, to_row
from data_prep.images import resolve
from data_prep.samples import DataError, RawSample, Side, Turn
from data_prep.shards import write_manifest, write_shard
from data_prep.sources import discover, read
from pipeline.batches.collate import Collator
from pipeline.batches.loader import StepLoader
from pipeline.batches.plan import draw, permute
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig
from pipeline.model.base import BaseSize, write_base
from pipeline.model.chorus import add_chorus

QUESTION = "Give the text that belongs to the image."
SIZES = {
    "2M": BaseSize(),
    "5M": BaseSize(hidden=256, layers=4, heads=4, kv_heads=2, feed_forward=704, vision_layers=3, vocabulary=4096),
    "24M": BaseSize(
        hidden=512, layers=6, heads=8, kv_heads=2, feed_forward=1408, vision_width=256, vision_layers=4, vision_heads=8, vocabulary=4096
    ),
}


@dataclass(frozen=True)
class Task:
    """What the cases share; JSON-ready."""

    folder: str
    """Holds `base`, `crem` (the same weights with chorus tokens), `shards` and `pairs.json`."""
    batch: int
    """Pairs of a step, over all ranks."""
    steps: int
    """Timed steps."""
    warmup: int
    """Steps before those."""
    max_pixels: int
    threads: int
    """Of torch, over all ranks."""
    attention: str
    """The trainer's, see `ModelSettings.attention`."""
    row_tokens: int
    chunk_tokens: int

    @property
    def checkpoint(self) -> str:
        return f"{self.folder}/crem"

    @property
    def limits(self) -> EncodeSettings:
        return EncodeSettings(max_pixels=self.max_pixels)

    def config(self) -> RunConfig:
        """The trainer's."""
        batch = {"pairs": self.batch, "conversations": 0, "sub_batch": self.batch}
        return RunConfig.model_validate(
            {
                "steps": self.warmup + self.steps,
                "model": {"checkpoint": self.checkpoint, "attention": self.attention},
                "data": {"shards": f"{self.folder}/shards"},
                "batch": batch | {"row_tokens": self.row_tokens, "chunk_tokens": self.chunk_tokens},
                "optim": {"learning_rate": 1e-4},
            }
        )

    def loader(self, rope_index, rank: int = 0, world: int = 1) -> StepLoader:
        """The trainer's own loader."""
        encoder = Encoder(self.checkpoint, self.limits)
        reader = ShardReader(Path(self.folder) / "shards", encoder)
        collator = Collator(encoder.images, rope_index, encoder.image_id, encoder.tokenizer.pad_token_id)
        return StepLoader(reader, collator, self.config(), rank, world)

    def batches(self) -> Iterator[list["Pair"]]:
        """The pairs of every step, as the trainer draws them."""
        pairs = [Pair(**pair) for pair in json.loads(Path(self.folder, "pairs.json").read_text())]
        loader, config = self.loader(None), self.config()
        for number in range(config.steps):
            rows = [pairs[row] for row in loader.pair_rows(number)]
            yield [pair.drawn(draw(config.loss.compression_probability, config.seed, number, pair.id)) for pair in rows]


@dataclass(frozen=True)
class Pair:
    """A pair as the opponents read it: an image file, words beside it, and the text that belongs to both."""

    id: str
    image: str
    query: str
    target: str
    compressed: bool = False
    """z of CREM in the step at hand."""

    def drawn(self, compressed: bool) -> "Pair":
        return Pair(self.id, self.image, self.query, self.target, compressed)


def write_task(task: Task, data: Path | None, rows: int, size: str, seed: int = 0) -> None:
    """Write the checkpoint and the pairs of `data` (None: the embedded set, drawn on the spot).

    Raises:
        DataError: `data` has fewer usable pairs than a step takes.
    """
    folder = Path(task.folder)
    if data is None:
        write_embedded(folder / "data", rows)
        data = folder / "data" / "MMEB-train"
    found = [sample for sample in samples(data) if usable(sample)]
    chosen = [found[permute(i, len(found), seed)] for i in range(min(rows, len(found)))]
    if len(chosen) < task.batch:
        raise DataError(
            f"{data}: found {len(chosen)} pairs of one picture and a text, expected {task.batch} at least; lower --batch, or name more"
        )
    texts = corpus(0) if size == "2M" else [*corpus(0), *(sample.positive.text for sample in found), *(s.query.text for s in found)]
    write_base(folder / "base", texts, SIZES[size])
    add_chorus(folder / "base", folder / "crem")
    encoder = Encoder(task.checkpoint, task.limits)
    (folder / "shards").mkdir()
    record = write_shard(folder / "shards", "pairs-000.arrow", "pairs", (to_row(encoder.sample(asked(s))) for s in chosen), [])
    write_manifest(folder / "shards", {"encoder": encoder.fingerprint()}, [record])
    pairs = [Pair(s.id, str(resolve(s.query.images[0])), s.query.text, s.positive.text) for s in chosen]
    (folder / "pairs.json").write_text(json.dumps([asdict(pair) for pair in pairs]))


def samples(data: Path) -> Iterable[RawSample]:
    """All readable rows of an MMEB-train folder."""
    for part in discover(data):
        if part.reader == "mmeb_train":
            yield from (row for row in read(part, 0, part.rows) if isinstance(row, RawSample))


def usable(sample: RawSample) -> bool:
    """Whether every case can take the row: one picture with words on one side, a text alone on the other."""
    sides = sample.query, sample.positive
    return [len(side.images) for side in sides] == [1, 0] and all(side.text for side in sides)


def asked(sample: RawSample) -> RawSample:
    """The row with the question that its positive answers, and without hard negatives, which the opponents do not take."""
    positive = Side(sample.positive.text)
    return RawSample(sample.id, "pairs", sample.query, (Turn(QUESTION, sample.positive.text),), positive)
