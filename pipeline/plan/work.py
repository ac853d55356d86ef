"""What a step is made of: sequences, tokens, images. Counted from prepared shards where they exist, otherwise from stated assumptions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from data_prep.lengths import lengths
from data_prep.schema import Role
from data_prep.shards import Manifest, load_manifest, open_shard
from pipeline.config import RunConfig
from pipeline.plan.sizes import Model


@dataclass(frozen=True)
class Assumed:
    """The data of a plan without shards. Values for MMEB-train: 16 of its 20 subsets have an image in the query, 8 in the target."""

    image_tokens: int = 640
    """Tokens of an image: half of the 1,280 that training images may have."""
    images_per_pair: float = 1.2
    text_tokens: int = 64
    """Text of one side of a pair, chat marks included, chorus not."""
    conversation_tokens: int = 300
    """Text of a conversation, its answers included; it has one image."""
    answer_tokens: int = 150
    """Answer tokens of a conversation."""
    rows: int = 662_000
    """Rows of pairs: MMEB-train with at most 50,000 a subset (VLM2Vec)."""


@dataclass(frozen=True)
class Work:
    """One optimizer step, over all ranks, on average."""

    source: str
    """Where the numbers come from, for the reader."""
    pairs: int
    embedded: int
    """Sequences with an embedding: queries, targets, hard negatives."""
    tokens: float
    image_tokens: float
    images: float
    answer_tokens: float
    sequences: float
    rows: int | None
    """Rows of the data; None: unknown."""
    shards: int
    """Files of the data (assumed: 512 rows a file)."""
    row_tokens: int
    chunk_tokens: int

    @property
    def image_share(self) -> float:
        """Share of image tokens."""
        return self.image_tokens / self.tokens

    @property
    def patches_per_image(self) -> float:
        """Image tokens of an image."""
        return self.image_tokens / self.images if self.images else 0.0

    def chunks(self, ranks: int) -> int:
        """Forward passes of one rank in a step: its share of the tokens in chunks."""
        return max(1, -(-round(self.tokens / ranks) // self.chunk_tokens))


ROWS_PER_SHARD = 512


def assume(config: RunConfig, model: Model, assumed: Assumed = Assumed()) -> Work:
    """A step of assumed rows."""
    batch = config.batch
    images = batch.pairs * assumed.images_per_pair + batch.conversations
    image_tokens = images * assumed.image_tokens
    side = assumed.text_tokens + model.chorus
    text = batch.pairs * 2 * side + batch.conversations * (assumed.conversation_tokens + model.chorus)
    return Work(
        source=f"assumed: {assumed.images_per_pair:g} images of {assumed.image_tokens} tokens a pair, {assumed.text_tokens} text tokens a "
        f"side, conversations of an image and {assumed.conversation_tokens} tokens, {assumed.answer_tokens} of them answers",
        pairs=batch.pairs,
        embedded=2 * batch.pairs,
        tokens=text + image_tokens,
        image_tokens=image_tokens,
        images=images,
        answer_tokens=batch.conversations * assumed.answer_tokens,
        sequences=2 * batch.pairs + batch.conversations,
        rows=assumed.rows,
        shards=-(-assumed.rows // ROWS_PER_SHARD),
        row_tokens=batch.row_tokens,
        chunk_tokens=batch.chunk_tokens,
    )


def from_shards(config: RunConfig, image_id: int) -> Work:
    """A step of the shards' rows, sources weighted as the run weights them (but for data.epochs, which end a source within it).

    Lengths are exact, read from arrow offsets. Images and answer tokens are counted in the first record batch of every shard.

    Raises:
        DataError: no manifest, or a damaged shard.
    """
    folder, batch = config.data.shards, config.batch
    manifest = load_manifest(folder)
    found = lengths(folder, manifest)
    rows = {source: sum(s.rows for s in manifest.shards if s.source == source) for source in found}
    kinds = {True: batch.pairs, False: batch.conversations}
    totals = dict.fromkeys(("tokens", "embedded", "sequences", "image_tokens", "images", "answer_tokens"), 0.0)
    for pairs, wanted in kinds.items():
        own = {s: rows[s] for s in found if rows[s] and (len(found[s]) > rows[s]) == pairs}  # a pair has two sequences or more
        used = {s: min(count, config.data.caps.get(s, count)) for s, count in own.items()}
        weights = {s: config.data.weights.get(s, count**config.data.mix_exponent) for s, count in used.items()}
        for source, weight in weights.items():
            drawn = wanted * weight / sum(weights.values()) if weight else 0.0
            totals["tokens"] += drawn * float(found[source].sum()) / rows[source]
            totals["sequences"] += drawn * len(found[source]) / rows[source]
            totals["embedded"] += drawn * len(found[source]) / rows[source] * pairs
            for name, value in _sampled(folder, manifest, source, image_id).items():
                totals[name] += drawn * value
    return Work(
        source=f"{folder}: lengths of all {manifest.rows} rows, images and answers of the first rows of every shard",
        pairs=batch.pairs,
        embedded=round(totals.pop("embedded")),
        rows=manifest.rows,
        shards=len(manifest.shards),
        row_tokens=batch.row_tokens,
        chunk_tokens=batch.chunk_tokens,
        **totals,
    )


def _sampled(folder: Path, manifest: Manifest, source: str, image_id: int) -> dict[str, float]:
    """Image tokens, images and answer tokens of a source's row, from the first record batch of each of its shards."""
    counted = np.zeros(4)
    for shard in manifest.shards:
        if shard.source != source or not shard.rows:
            continue
        rows = open_shard(folder / shard.name).get_batch(0)
        counted[3] += rows.num_rows
        for side in (rows["query"], rows["positive"], rows["negatives"].flatten()):
            side = side.drop_null()
            ids, roles = (pc.list_flatten(pc.struct_field(side, name)) for name in ("ids", "roles"))
            images = pc.list_value_length(pc.struct_field(side, "images"))
            counted[:3] += [
                pc.sum(pc.equal(ids, image_id)).as_py() or 0,
                pc.sum(images).as_py() or 0,
                pc.sum(pc.equal(roles, int(Role.ANSWER))).as_py() or 0,
            ]
    return dict(zip(("image_tokens", "images", "answer_tokens"), (counted[:3] / counted[3]).tolist(), strict=True))
