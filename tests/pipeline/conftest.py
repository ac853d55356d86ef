"""The small model, ready to run, and data for it. Weights are scaled up, so that whatever reaches a token changes it visibly."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.encode import Encoder, to_row
from data_prep.samples import ImageRef, RawSample, Side, Turn
from data_prep.shards import write_manifest, write_shard
from pipeline.batches.collate import Collator
from pipeline.model.crem import Crem, load_backbone

torch.set_num_threads(1)  # the tensors are tiny


@dataclass(frozen=True)
class Kit:
    """Everything a test needs of one model family."""

    family: str
    checkpoint: Path
    encoder: Encoder
    model: Crem
    collator: Collator


@pytest.fixture(scope="session")
def kit_of(checkpoint_of) -> Callable[[str], Kit]:
    """The kit of a family: its small checkpoint in float32, matrices times four."""

    @cache
    def build(family: str) -> Kit:
        model = Crem(load_backbone(checkpoint_of(family), torch.float32)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
        encoder = Encoder(checkpoint_of(family))
        collator = Collator(encoder.images, model.backbone.model.get_rope_index, encoder.image_id, encoder.tokenizer.pad_token_id)
        return Kit(family, checkpoint_of(family), encoder, model, collator)

    return build


@pytest.fixture(scope="session")
def model(kit_of) -> Crem:
    """`checkpoint` in float32, matrices times four."""
    return kit_of("qwen2_vl").model


@pytest.fixture(scope="session")
def collator(kit_of) -> Collator:
    """The collator of `checkpoint`."""
    return kit_of("qwen2_vl").collator


@pytest.fixture(scope="session")
def picture() -> Callable[..., ImageRef]:
    """Makes a noise image; the same seed, the same picture. 56 x 56 is four image tokens."""

    def make(seed: int, width: int = 56, height: int = 56) -> ImageRef:
        file = io.BytesIO()
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "PNG")
        return ImageRef(f"noise-{seed}-{width}x{height}.png", data=file.getvalue())

    return make


@pytest.fixture(scope="session")
def raw_samples(picture) -> dict[str, list[RawSample]]:
    """Three sources: pairs with and without images, pairs with questions and hard negatives, conversations."""
    colours = ("red", "blue", "green", "yellow", "grey")
    plain = [
        RawSample(
            id=f"plain/{i}",
            source="plain",
            query=Side(f"a {colours[i % 5]} circle, number {i}", (picture(i),) * (i % 2)),
            positive=Side(f"the {colours[i % 5]} circle") if i % 3 else Side(images=(picture(100 + i, 84 if i % 2 else 56),)),
        )
        for i in range(13)
    ]
    asked = [
        RawSample(
            id=f"asked/{i}",
            source="asked",
            query=Side(f"{colours[i % 5]} stars", (picture(200 + i), picture(300 + i, 56, 84))[: i % 3]),
            turns=(Turn("what colour?", f"{colours[i % 5]}."), Turn("how many?", f"there are {i}."))[: 1 + i % 2],
            positive=Side(f"{i} stars that are {colours[i % 5]}"),
            negatives=tuple(Side(f"{i + n} squares, {colours[n]}", (picture(400 + n),) * n) for n in range(i % 3)),
        )
        for i in range(9)
    ]
    chats = [
        RawSample(
            id=f"chats/{i}",
            source="chats",
            query=Side("look" * (i % 2), (picture(500 + i),)),
            turns=(Turn("what is in the picture?", f"a {colours[i % 5]} ring" + " and two squares" * i),),
        )
        for i in range(7)
    ]
    return {"plain": plain, "asked": asked, "chats": chats}


@pytest.fixture(scope="session")
def write_data(encoder: Encoder) -> Callable[..., Path]:
    """Writes raw samples as shards of at most `rows` rows, with a manifest, for `encoder` or another one."""

    def write(
        folder: Path, samples: dict[str, list[RawSample]], rows: int = 5, fingerprint: dict | None = None, encoder: Encoder = encoder
    ) -> Path:
        folder.mkdir(parents=True)
        records = [
            write_shard(folder, f"{source}-{start:03}.arrow", source, (to_row(encoder.sample(s)) for s in own[start : start + rows]), [])
            for source, own in samples.items()
            for start in range(0, len(own), rows)
        ]
        write_manifest(folder, {"encoder": fingerprint or encoder.fingerprint()}, records)
        return folder

    return write


@pytest.fixture(scope="session")
def shards(write_data, raw_samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`raw_samples` on disk: rows 0-12 plain, 13-21 asked, 22-28 chats. Not to be changed."""
    return write_data(tmp_path_factory.mktemp("data") / "shards", raw_samples)
