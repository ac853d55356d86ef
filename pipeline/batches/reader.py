"""Random access to prepared shards through memory maps.

Opening checks the whole contract first: manifest, schema version, every file's digest, and that the shards were made for this very
checkpoint (tokenizer, template, image rules, chorus). Rows are then numbered over all shards in manifest order.

Memory does not grow with the rows: a few shards are mapped at a time, and of those only the record batch that holds a row is looked at.
"""

from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.encode import EncodedSample, Encoder
from data_prep.samples import DataError
from data_prep.schema import ROW
from data_prep.sequence import TokenSequence
from data_prep.shards import Manifest, load_manifest, open_shard, verify_shards
from data_prep.stored import PreparedImage
from pipeline.batches.plan import SourceRows

OPEN_SHARDS = 64
"""Shards mapped at a time, the latest used: a bound on memory, and on open files, of which a process often may have 1024."""


class ShardReader:
    """The rows of a prepared data set.

    Args:
        folder: folder of shards with a manifest.
        encoder: the checkpoint's encoder, to compare fingerprints with; None skips that check (inspection tools).
        verify: also digest every file (one sequential read of the data).

    Raises:
        DataError: the data set is unfinished, altered, empty, or made for another checkpoint.
    """

    def __init__(self, folder: Path, encoder: Encoder | None = None, verify: bool = True):
        self.folder = Path(folder)
        self.manifest = load_manifest(self.folder)
        if encoder is not None:
            check_fingerprint(self.folder, self.manifest, encoder)
        if verify:
            verify_shards(self.folder, self.manifest)
        shards = [shard for shard in self.manifest.shards if shard.rows]
        if not shards:
            raise DataError(f"{folder}: found no rows; expected at least one. See the rejected rows in its manifest")
        self._paths = [self.folder / shard.name for shard in shards]
        for path in self._paths:
            _open(path)  # the columns of every shard are checked before any row is read
        self._opened = lru_cache(maxsize=OPEN_SHARDS)(_open)
        self._starts = np.cumsum([0] + [shard.rows for shard in shards]).tolist()
        self._sources = [shard.source for shard in shards]

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def chorus(self) -> int:
        """K: chorus tokens of every sequence."""
        return len(self.manifest.fingerprint["encoder"]["chorus_ids"])

    def sources(self) -> tuple[list[SourceRows], list[SourceRows]]:
        """Row ranges by source: those whose rows have a positive (pairs), and those without (conversations).

        Raises:
            DataError: a source mixes rows with and without a positive, or its shards do not lie side by side in the manifest.
        """
        pairs, conversations = [], []
        for name in dict.fromkeys(self._sources):
            own = [i for i, source in enumerate(self._sources) if source == name]
            if own[-1] - own[0] >= len(own):
                raise DataError(f"{self.folder}: found shards of other sources between those of {name}; expected them side by side")
            first, stop = self._starts[own[0]], self._starts[own[-1] + 1]
            rows = SourceRows(name, first, stop - first)
            missing = sum(_without_positive(self._paths[i]) for i in own)
            if missing not in (0, rows.count):
                raise DataError(
                    f"{self.folder}: {name} has {missing} rows of {rows.count} without a positive; expected all or none. "
                    "Prepare the data again"
                )
            (conversations if missing else pairs).append(rows)
        return pairs, conversations

    def row(self, number: int) -> EncodedSample:
        """Row `number`, its image bytes copied out of the map."""
        shard = bisect_right(self._starts, number) - 1
        file, size = self._opened(self._paths[shard])
        batch, place = divmod(number - self._starts[shard], size)
        row = file.get_batch(batch).slice(place, 1).to_pylist()[0]
        images = tuple(PreparedImage(**image) for image in row["images"])
        negatives = tuple(_sequence(value, images) for value in row["negatives"] or ())
        positive = None if row["positive"] is None else _sequence(row["positive"], images)
        return EncodedSample(row["id"], row["source"], _sequence(row["query"], images), positive, negatives)


def check_fingerprint(folder: Path, manifest: Manifest, encoder: Encoder) -> None:
    """Refuse shards made for another checkpoint.

    Raises:
        DataError: naming every entry that differs.
    """
    found, expected = manifest.fingerprint["encoder"], encoder.fingerprint()
    # limits of length and pixels belong to the data, not to the model
    owned = [key for key in expected if key not in ("max_tokens", "min_text_tokens", "image_rules")]
    rules = ("patch_size", "merge_size", "resample")
    differ = [key for key in owned if found.get(key) != expected[key]]
    differ += [key for key in rules if found["image_rules"].get(key) != expected["image_rules"][key]]
    if differ:
        raise DataError(
            f"{folder}: found shards made for another checkpoint (different: {', '.join(differ)}); expected ones made for this model. "
            f"Prepare the data again with --checkpoint naming the model you train"
        )


def _open(path: Path) -> tuple[pa.RecordBatchFileReader, int]:
    """A shard's batches, memory-mapped, and the rows of each but the last, which may have fewer."""
    file = open_shard(path)
    if file.schema != ROW:
        raise DataError(f"{path}: found columns {file.schema.names} of other types; expected {ROW.names} of this schema version")
    return file, file.get_batch(0).num_rows


def _without_positive(path: Path) -> int:
    file, _ = _open(path)
    return sum(file.get_batch(number)["positive"].null_count for number in range(file.num_record_batches))


def _sequence(value: dict, images: tuple[PreparedImage, ...]) -> TokenSequence:
    ids, roles = np.asarray(value["ids"], np.int32), np.asarray(value["roles"], np.uint8)
    return TokenSequence(ids, roles, tuple(images[i] for i in value["images"]))
