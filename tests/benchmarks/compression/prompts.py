"""What every way of answering gets: one checkpoint, and the same token ids and pixels, made before any clock starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_prep.embedded import corpus
from data_prep.encode import Encoder, EncodeSettings
from data_prep.samples import ImageRef, Side
from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from pipeline.batches.batch import PackedBatch
from pipeline.batches.collate import Job
from pipeline.evaluate.generate import split_after_chorus
from pipeline.evaluate.open import open_checkpoint
from pipeline.inference import CremModel
from pipeline.model.base import write_base
from pipeline.model.chorus import add_chorus
from tests.benchmarks.throughput.task import SIZES

QUESTION = "What is in the picture? Answer in one sentence."


@dataclass(frozen=True)
class Prompts:
    """B questions, each about a picture of its own; all of one length."""

    whole: Tensor
    """int64 [B, T] context, chorus and question: what `generate` is given."""
    prefixes: list[TokenSequence]
    questions: list[np.ndarray]
    """Token ids after the chorus."""
    positions: list[Tensor]
    """int64 [Q] each: M-RoPE positions of the questions' tokens."""
    packed: PackedBatch
    """The prefixes as the model reads them, pixels included."""
    stored: Path
    """The chorus caches of the pictures, as a file."""

    @property
    def prefix(self) -> int:
        """Tokens of a context with its chorus."""
        return len(self.prefixes[0])


class Packed:
    """Takes the collator's place with a batch that is packed already, so that no picture is decoded while a clock runs."""

    def __init__(self, batch: PackedBatch):
        self.batch = batch

    def __call__(self, rows: Sequence[Sequence[Job]]) -> PackedBatch:
        return self.batch


def write_checkpoint(size: str, folder: Path) -> Path:
    """A random checkpoint of one of `throughput.task.SIZES`, with sixteen chorus tokens."""
    write_base(folder / f"{size}-base", corpus(), SIZES[size])
    add_chorus(folder / f"{size}-base", folder / size)
    return folder / size


def open_model(checkpoint: str | Path, image_tokens: int) -> CremModel:
    """Opened so that an image may have that many tokens."""
    encoder = Encoder(checkpoint, EncodeSettings(max_tokens=2**17)).with_image_tokens(4, image_tokens)
    return CremModel(open_checkpoint(checkpoint, encoder), checkpoint)


def pictures(model: CremModel, count: int, image_tokens: int) -> list[Image.Image]:
    """Seeded noise, nearly square, at most `image_tokens` tokens each: 1,000 asked for are 31 x 32 = 992."""
    rows = int(image_tokens**0.5)
    factor, rng = model.opened.encoder.factor, np.random.default_rng(0)
    shape = (rows * factor, image_tokens // rows * factor, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def write_prompts(model: CremModel, count: int, image_tokens: int, folder: Path) -> Prompts:
    """`count` prompts of about `image_tokens` image tokens; their chorus caches go to a file in `folder`."""
    encoder, collator = model.opened.encoder, model.opened.collator
    shown = pictures(model, count, image_tokens)
    sequences = [encoder.sequence(Side(images=(ImageRef("noise", picture=each),)), open_question=QUESTION) for each in shown]
    split = [split_after_chorus(sequence) for sequence in sequences]
    stored = folder / f"{count}.safetensors"
    model.remember(shown).save(stored)
    return Prompts(
        whole=torch.from_numpy(np.stack([sequence.ids for sequence in sequences]).astype(np.int64)),
        prefixes=[prefix for prefix, _ in split],
        questions=[question for _, question in split],
        positions=[collator.positions(sequence)[0, len(prefix) :] for sequence, (prefix, _) in zip(sequences, split, strict=True)],
        packed=collator([[Job(prefix)] for prefix, _ in split]),
        stored=stored,
    )


def text_prefix(encoder: Encoder, tokens: int) -> tuple[TokenSequence, np.ndarray]:
    """A context of exactly `tokens` tokens with its chorus, all words, and the question's ids.

    Raises:
        ValueError: the chat format and the chorus alone are longer.
    """
    words = " ".join(line for line, _ in zip(corpus(), range(50), strict=False))
    prefix, question = split_after_chorus(encoder.sequence(Side(words), open_question=QUESTION))
    bare, _ = split_after_chorus(encoder.sequence(Side(), open_question=QUESTION))
    start = next(i for i, (a, b) in enumerate(zip(prefix.ids, bare.ids, strict=False)) if a != b)  # the words begin
    missing = tokens - len(bare)
    if missing < 0:
        raise ValueError(f"prefix of {tokens} tokens: found {len(bare)} without any words; expected that many at least")
    filling = np.resize(prefix.ids[start : start + len(prefix) - len(bare)], missing)
    roles = np.insert(bare.roles, start, np.full(missing, Role.CONTEXT, np.uint8))
    return TokenSequence(np.insert(bare.ids, start, filling), roles), question
