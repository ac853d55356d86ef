"""Pictures and a small corpus for the tests of data_prep."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture_56() -> bytes:
    """A noise PNG of 56 x 56 pixels: four image tokens, no resizing."""
    return noise_png(0)


def noise_png(seed: int) -> bytes:
    """Every seed another picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def write_corpus() -> Callable[[Path], Path]:
    """Writes 20 pairs (mmeb_train/Colours, in two files of 12 and 8) and 10 conversations (sharegpt4v/chats), 30 pictures in all."""

    def write(root: Path) -> Path:
        (root / "MMEB-train" / "Colours").mkdir(parents=True)
        (root / "MMEB-train" / "images").mkdir()
        (root / "chats" / "images").mkdir(parents=True)
        pairs = [
            {"qry": f"find {i}", "qry_image_path": "", "pos_text": f"number {i}", "pos_image_path": f"images/{i}.png"} for i in range(20)
        ]
        for i in range(20):
            (root / "MMEB-train" / "images" / f"{i}.png").write_bytes(noise_png(i))
        for number, rows in enumerate((pairs[:12], pairs[12:])):
            pq.write_table(pa.Table.from_pylist(rows), root / "MMEB-train" / "Colours" / f"original-0000{number}-of-00002.parquet")
        chats = [
            {
                "image": f"images/{i}.png",
                "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": f"ring {i}"}],
            }
            for i in range(10)
        ]
        for i in range(10):
            (root / "chats" / "images" / f"{i}.png").write_bytes(noise_png(100 + i))
        (root / "chats" / "chats.json").write_text(json.dumps(chats))
        return root

    return write


@pytest.fixture(scope="session")
def corpus(write_corpus: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `write_corpus`; not to be changed."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data")
