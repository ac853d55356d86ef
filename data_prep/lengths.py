"""How long the sequences of prepared data are, in tokens: what rows, chunks and memory of a run are planned with.

Read from the arrow offsets through memory maps, a record batch at a time; no token, role or picture is touched.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.shards import Manifest, open_shard

SHARES = (50, 90, 99, 100)
"""Percentiles that are printed; 100 is the longest."""


def lengths(folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """Tokens of every sequence (query, positive, negatives) by source: int64 [sequences], in no particular order.

    Raises:
        DataError: a shard that the manifest names is missing or damaged.
    """
    found: dict[str, list[np.ndarray]] = {}
    for shard in manifest.shards:
        reader = open_shard(folder / shard.name)
        for number in range(reader.num_record_batches):
            found.setdefault(shard.source, []).extend(_of_batch(reader.get_batch(number)))
    return {source: np.concatenate(own) for source, own in found.items()}


def _of_batch(batch: pa.RecordBatch) -> list[np.ndarray]:
    sides = [batch["query"], batch["positive"], batch["negatives"].flatten()]
    counted = [pc.list_value_length(pc.struct_field(side, "ids")) for side in sides]
    return [count.drop_null().to_numpy().astype(np.int64) for count in counted]


def histogram(tokens: np.ndarray) -> list[tuple[int, int]]:
    """(upper bound, sequences of at most that many tokens and more than the bound before), bounds being powers of two."""
    bounds, counts = np.unique(np.ceil(np.log2(np.maximum(tokens, 1))).astype(int), return_counts=True)
    return [(2 ** int(bound), int(count)) for bound, count in zip(bounds, counts, strict=True)]


def length_table(found: dict[str, np.ndarray]) -> str:
    """Percentiles by source, and one histogram over all."""
    names = [f"{share} %" for share in SHARES[:-1]] + ["longest"]
    lines = [f"{'source':40} {'sequences':>10} {'tokens':>12}" + "".join(f"{name:>9}" for name in names)]
    for source, tokens in sorted(found.items()):
        places = np.percentile(tokens, SHARES, method="inverted_cdf").astype(int)
        lines.append(f"{source:40} {len(tokens):10} {tokens.sum():12}" + "".join(f"{place:9}" for place in places))
    every = np.concatenate(list(found.values())) if found else np.zeros(0, np.int64)
    bars = histogram(every)
    for bound, count in bars:
        lines.append(f"  up to {bound:6} tokens {count:10}  {'#' * max(1, round(40 * count / max(c for _, c in bars)))}")
    return "\n".join(lines)
