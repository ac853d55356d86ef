"""Writers of tiny corpora; tests state the rows, these put them on disk in the real layout."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


@pytest.fixture
def write_image() -> Callable[[Path], Path]:
    """Writes a 2 x 2 PNG, folders included."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), "red").save(path, "PNG")
        return path

    return write


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Writes rows, {column: value} each, as parquet; `schema` where the types cannot be told from the values."""

    def write(path: Path, rows: list[dict], schema: pa.Schema | None = None, **options) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **options)
        return path

    return write


@pytest.fixture
def write_json() -> Callable[[Path, list], Path]:
    """Writes records as one array (`.json`) or one a line (`.jsonl`)."""

    def write(path: Path, records: list) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        path.write_text(
            "\n".join(lines) if path.suffix == ".jsonl" else json.dumps(records, ensure_ascii=False, indent=1)
        )
        return path

    return write
