"""Negatives as MMEB's two columns, in a copy of a parquet file; every other column stays as it is.

One negative is a plain string, as in TIGER-Lab/MMEB-train; several are a Python list written as a string, as in
intfloat/mmE5-MMEB-hardneg. `sources.mmeb_train` reads both.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.samples import Side
from data_prep.shards import atomic_file

Stated = tuple[str, str]
"""Text and image path of a side as MMEB's columns state it."""


def write_copy(source: Path, target: Path, negatives: Sequence[Sequence[Stated]]) -> None:
    """Write `source` with these negatives, one entry per row, to `target`: whole or not at all."""
    table = pq.read_table(source)
    for place, name in enumerate(("neg_text", "neg_image_path")):
        column = pa.array([cell([stated[place] for stated in own]) for own in negatives], pa.string())
        there = table.schema.get_field_index(name)
        table = table.append_column(name, column) if there < 0 else table.set_column(there, name, column)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temporary:
        pq.write_table(table, temporary)


def cell(values: Sequence[str]) -> str:
    """ "" for none, the value itself for one, else the list as Python source; one that looks like a list is written as a list too."""
    if len(values) > 1 or (values and values[0].startswith("[") and values[0].endswith("]")):
        return repr(list(values))
    return values[0] if values else ""


def as_stated(side: Side) -> Stated:
    """A negative that the row has already, in MMEB's form."""
    path = side.images[0].name if side.images else ""
    return (f"<|image_1|>\n{side.text}\n" if path else side.text), path
