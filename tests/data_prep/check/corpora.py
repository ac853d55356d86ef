"""Rows of corpora with and without faults."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = "original-00000-of-00001.parquet"


def pair(query: str, image: str, positive: str = "yes", negative: str = "") -> dict[str, str]:
    return {"qry": query, "qry_image_path": image, "pos_text": positive, "pos_image_path": "", "neg_text": "", "neg_image_path": negative}


def talk(image: str, question: str, answer: str = "a") -> dict:
    return {"image": image, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


def write_pairs(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
