"""Rows of a parquet file with a known schema, slice by slice.

Invariant: column types are checked before any row is read - strings or lists of strings, never nested or extension
types - and only the columns asked for are read. Page checksums are verified where the file has them. A column that is
null throughout may stand for either type.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.samples import DataError

TEXT = "string"
TEXTS = "list of string"
TEXT_OR_TEXTS = "string or list of string"
"""What a column may hold."""

BATCH_ROWS = 256


class Table:
    """An open parquet file and those of the wanted columns that it has; a context manager.

    Args:
        required, optional: {column: `TEXT`, `TEXTS` or `TEXT_OR_TEXTS`}.

    Raises:
        DataError: not parquet, a required column missing, a column of another type, no rows.
    """

    def __init__(self, path: Path, required: Mapping[str, str], optional: Mapping[str, str]):
        self.path = path
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable parquet file: {error}; download it again") from error
        self.rows: int = self._file.metadata.num_rows
        try:
            self.columns = _columns(path, self._file.schema_arrow, required, optional)
            if self.rows == 0:
                raise DataError(f"{path}: found 0 rows, expected at least one; download the file again or remove it")
        except DataError:
            self._file.close()
            raise

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def slice(self, start: int, stop: int) -> Iterator[tuple[int, dict]]:
        """(row number, {column: value}) for rows [start, stop); only the row groups that hold them are read."""
        first = 0
        for group in range(self._file.num_row_groups):
            count = self._file.metadata.row_group(group).num_rows
            if first < stop and first + count > start:
                yield from self._group(group, first, start, stop)
            first += count

    def _group(self, group: int, first: int, start: int, stop: int) -> Iterator[tuple[int, dict]]:
        try:
            for batch in self._file.iter_batches(BATCH_ROWS, [group], self.columns):
                begin, end = max(start - first, 0), min(stop - first, batch.num_rows)
                if begin < end:
                    yield from enumerate(batch.slice(begin, end - begin).to_pylist(), first + begin)
                first += batch.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: damaged data in row group {group}: {error}; download it again") from error


def _columns(path: Path, schema: pa.Schema, required: Mapping[str, str], optional: Mapping[str, str]) -> list[str]:
    missing = [name for name in required if name not in schema.names]
    if missing:
        also = f" and optionally {', '.join(optional)}" if optional else ""
        raise DataError(
            f"{path}: wrong columns: found {', '.join(schema.names)}; missing {', '.join(missing)}; "
            f"expected {', '.join(required)}{also}"
        )
    wanted = {name: kind for name, kind in {**required, **optional}.items() if name in schema.names}
    for name, kind in wanted.items():
        found = [field.type for field in schema if field.name == name]
        if len(found) > 1 or not _fits(found[0], kind):
            raise DataError(f"{path}: column {name}: found {', '.join(map(str, found))}; expected {kind}")
    return list(wanted)


def _fits(found: pa.DataType, kind: str) -> bool:
    if pa.types.is_null(found):
        return True
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        return kind != TEXT and _is_string(found.value_type)
    return kind != TEXTS and _is_string(found)


def _is_string(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_null(found)
