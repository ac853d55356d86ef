"""Show one prepared row as a person can check it: the decoded prompt, stretch by stretch, with each stretch's role."""

from itertools import groupby
from pathlib import Path

import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from data_prep.checkpoint import load_config
from data_prep.samples import DataError
from data_prep.schema import Role
from data_prep.shards import Manifest, finished_shard


def describe_row(folder: Path, manifest: Manifest, number: int, checkpoint: str | None) -> str:
    """The row's sequences with roles; text where a checkpoint's tokenizer is given, token counts otherwise.

    Raises:
        DataError: there is no such row.
    """
    row = _row(folder, manifest, number)
    tokenizer = _tokenizer(checkpoint) if checkpoint else None
    lines = [f"row {number}  id {row['id']}  source {row['source']}"]
    for i, image in enumerate(row["images"]):
        lines.append(f"  image {i}: {image['width']} x {image['height']} pixels, {len(image['data'])} bytes")
    named = [("query", row["query"]), ("positive", row["positive"])]
    named += [(f"negative {i}", negative) for i, negative in enumerate(row["negatives"] or [])]
    for name, sequence in named:
        if sequence is not None:
            lines.append(f"{name}: {len(sequence['ids'])} tokens, images {sequence['images']}")
            lines += _stretches(sequence, tokenizer)
    return "\n".join(lines)


def _tokenizer(checkpoint: str) -> PreTrainedTokenizerBase:
    load_config(checkpoint)  # says what to do where there is none
    return AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)


def _stretches(sequence: dict, tokenizer) -> list[str]:
    out, start = [], 0
    for role, group in groupby(sequence["roles"]):
        ids = sequence["ids"][start : (start := start + len(list(group)))]
        text = repr(tokenizer.decode(ids)) if tokenizer else f"{len(ids)} tokens"
        out.append(f"  {Role(role).name:8} {text}")
    return out


def _row(folder: Path, manifest: Manifest, number: int) -> dict:
    left = number
    for shard in manifest.shards:
        if 0 <= left < shard.rows:
            if finished_shard(folder, shard.name) != shard:
                raise DataError(f"{folder / shard.name}: missing or damaged; prepare the data again (only this shard is redone)")
            table = pa.ipc.open_file(pa.memory_map(str(folder / shard.name))).read_all()
            return table.slice(left, 1).to_pylist()[0]
        left -= shard.rows
    raise DataError(f"row {number}: expected 0 to {manifest.rows - 1}")
