"""CREM in a program: embed, answer, and answer again from what was remembered.

    import numpy as np
    from pipeline.evaluate.search import search
    from pipeline.inference import CremModel, StoredContext

    model = CremModel.open("work/run/export")

    # retrieval: one vector per item; an item is an image, a text, both, or several images
    pages = model.embed(images=["scan.png", "photo.png"], texts=[None, "Find the caption of this picture."])
    query = model.embed(texts=["a red circle above a blue square"])
    best = int((pages @ query.T).argmax())

    # the ten best of a million stored vectors, block by block, mapped from the file
    np.save("library.npy", pages.numpy().astype("float16"))
    found = search(query.numpy(), np.load("library.npy", mmap_mode="r"), k=10)  # found.numbers, found.scores

    # answers, from everything or from the chorus alone
    questions = ["What is in the picture?", "How many shapes are there?"]
    native = model.answer(["photo.png", ["scan.png", "photo.png"]], questions)
    compressed = model.answer(["photo.png", ["scan.png", "photo.png"]], questions, mode="compressed", k=2)

    # the same compressed answers later, without the images
    model.remember(["photo.png", ["scan.png", "photo.png"]], k=2).save("memory.safetensors")
    assert model.answer_from(StoredContext.load("memory.safetensors"), questions) == compressed

Every call takes k, the number of chorus tokens to use (default: all that the checkpoint has). A checkpoint trained with
--chorus.elastic is made for any of its sizes. Images are paths or opened Pillow images, and go through the same safe decoding and
resizing as training data; a path may lead anywhere the caller can read, so do not pass paths that strangers wrote.

Shapes: N items, P sizes k, D hidden.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import get_args

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from PIL import Image
from torch import Tensor

from data_prep.chorus import chorus_size
from data_prep.encode import Encoder, EncodeSettings
from data_prep.images import ImageError
from data_prep.samples import DataError, ImageRef, Side
from data_prep.sequence import TokenSequence
from pipeline.evaluate.embed import embed_nested
from pipeline.evaluate.generate import Mode, by_length, split_after_chorus
from pipeline.evaluate.open import Opened, open_checkpoint
from pipeline.evaluate.stored import StoredContext, checkpoint_digest

BATCH = 32
"""Sequences that are answered at a time."""
WINDOW = 2048
"""Items whose images are in memory at a time while embedding."""

Picture = Image.Image | str | Path
Pictures = Sequence[Picture | Sequence[Picture] | None] | None
"""One entry per item: a picture, a list of pictures, or None."""
Texts = Sequence[str | None] | None
"""One entry per item: its text, or None."""


class CremModel:
    """A checkpoint ready to embed and to answer.

    All methods raise DataError where an input cannot be used; the message names the item.
    """

    def __init__(self, opened: Opened, checkpoint: str | Path):
        self.opened, self.checkpoint = opened, checkpoint

    @classmethod
    def open(
        cls, checkpoint: str | Path, settings: EncodeSettings = EncodeSettings(max_tokens=32768), device: str | None = None
    ) -> "CremModel":
        """Open an exported folder, or any checkpoint with chorus tokens.

        Args:
            settings: limits of image area and length.
            device: e.g. "cuda:1"; the first GPU, or else the CPU, where none is named.

        Raises:
            DataError: no such checkpoint, or one without chorus tokens.
        """
        return cls(open_checkpoint(checkpoint, Encoder(checkpoint, settings), device), checkpoint)

    @property
    def chorus(self) -> int:
        """K: chorus tokens of the checkpoint, the largest k."""
        return len(self.opened.encoder.chorus_ids)

    @cached_property
    def digest(self) -> str:
        """Identifies the checkpoint in stored caches; reads the weights' files once."""
        return checkpoint_digest(self.checkpoint, self.opened.encoder)

    def embed(self, images: Pictures = None, texts: Texts = None, k: int | None = None) -> Tensor:
        """Unit-length float32 [N, D] on the CPU: dot products are cosines."""
        return self.embed_nested(images, texts, [chorus_size(k, self.chorus)])[0]

    def embed_nested(self, images: Pictures, texts: Texts, sizes: Sequence[int]) -> Tensor:
        """Embeddings at several k for the price of the largest: float32 [P, N, D], `out[p]` equal to `embed(images, texts, sizes[p])`."""
        if not sizes:
            raise DataError("sizes: found none, expected at least one k")
        sizes = [chorus_size(k, self.chorus) for k in sizes]
        encoder = self.opened.encoder.shortened(max(sizes))
        sides = _sides(images, texts)
        for item, side in enumerate(sides):
            if side.empty:
                raise DataError(f"item {item}: found neither image nor text, expected something to embed")
        windows = [range(start, min(start + WINDOW, len(sides))) for start in range(0, len(sides), WINDOW)]
        parts = [
            embed_nested(self.opened.model, self.opened.collator, [_encode(encoder, sides[i], i) for i in window], sizes)
            for window in windows
        ]
        return torch.cat(parts, dim=1)

    def answer(
        self,
        images: Pictures,
        questions: Sequence[str],
        mode: Mode = "native",
        k: int | None = None,
        max_new_tokens: int = 64,
        texts: Texts = None,
    ) -> list[str]:
        """Greedy answers, one per question, in order.

        Args:
            images: what each question is about; None for questions about text or about nothing.
            mode: "native" sees everything; "compressed" sees the k chorus tokens only.
            texts: context that stands before the chorus, beside or instead of images.
        """
        if mode not in get_args(Mode):
            raise DataError(f"mode: found {mode!r}, expected one of {', '.join(get_args(Mode))}")
        _check_limit(max_new_tokens)
        encoder = self.opened.encoder.shortened(k)
        sides = _sides(images, texts, len(_several("questions", questions)))
        sequences = [_encode(encoder, side, i, question.strip()) for i, (side, question) in enumerate(zip(sides, questions, strict=True))]
        out: dict[int, str] = {}
        for some in by_length(sequences, BATCH):
            answers = self.opened.answerer.answer([sequences[i] for i in some], mode, max_new_tokens)
            out |= {i: answer.text for i, answer in zip(some, answers, strict=True)}
        return [out[i] for i in range(len(sequences))]

    def remember(self, images: Pictures = None, texts: Texts = None, k: int | None = None) -> StoredContext:
        """The chorus caches of the items, on the CPU: all that compressed answers read."""
        encoder = self.opened.encoder.shortened(k)
        sequences = [_encode(encoder, side, i) for i, side in enumerate(_sides(images, texts))]
        keys, values, order = [], [], []
        for some in by_length(sequences, BATCH):
            context = self.opened.answerer.read([sequences[i] for i in some], "compressed")
            keys.append(torch.stack(context.keys).cpu())
            values.append(torch.stack(context.values).cpu())
            order += some
        stored = StoredContext(
            torch.cat(keys, dim=1),
            torch.cat(values, dim=1),
            tuple(int(self.opened.collator.positions(sequences[i]).max()) + 1 for i in order),
            tuple(len(sequences[i]) for i in order),
            self.digest,
        )
        return stored.select(sorted(range(len(order)), key=order.__getitem__))

    def answer_from(self, stored: StoredContext, questions: Sequence[str], max_new_tokens: int = 64) -> list[str]:
        """Compressed answers from stored caches, one question per context: those that `answer` gives with the images at hand.

        Several questions about one context: `stored.select([0, 0, 0])`.

        Raises:
            DataError: the cache was made by another checkpoint.
        """
        if stored.checkpoint != self.digest:
            raise DataError(
                f"stored context: found a chorus cache of checkpoint {stored.checkpoint[:16]}, expected one of {self.checkpoint} "
                f"({self.digest[:16]}); keys and values mean nothing to other weights. Make it again with remember()"
            )
        if len(_several("questions", questions)) != len(stored):
            raise DataError(
                f"found {len(questions)} questions for {len(stored)} stored contexts, expected one each (stored.select repeats contexts)"
            )
        _check_limit(max_new_tokens)
        like = next(self.opened.model.parameters())
        asked = [_encode(self.opened.encoder, Side(), i, question.strip()) for i, question in enumerate(questions)]
        out: dict[int, str] = {}
        for some in by_length(asked, BATCH):
            ids = [split_after_chorus(asked[i])[1] for i in some]
            positions = [stored.next_positions[i] + torch.arange(len(own), device=like.device) for i, own in zip(some, ids, strict=True)]
            answers = self.opened.answerer.continue_from(stored.select(some).context(like), ids, positions, max_new_tokens)
            out |= {i: answer.text for i, answer in zip(some, answers, strict=True)}
        return [out[i] for i in range(len(asked))]


def _sides(images: Pictures, texts: Texts, count: int | None = None) -> list[Side]:
    """One context side per item; `count` items where it is known."""
    lengths = {name: len(_several(name, given)) for name, given in (("images", images), ("texts", texts)) if given is not None}
    lengths |= {} if count is None else {"questions": count}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        found = ", ".join(f"{length} {name}" for name, length in lengths.items()) or "neither images nor texts"
        raise DataError(f"found {found}; expected as many of each, at least one (None stands for an item without)")
    [count] = set(lengths.values())
    both = zip(images or [None] * count, texts or [None] * count, strict=True)
    return [Side((text or "").strip(), tuple(_refs(pictures, item))) for item, (pictures, text) in enumerate(both)]


def _several(name: str, given: Sequence) -> Sequence:
    """`given`, which must be one entry per item."""
    if isinstance(given, Picture):
        raise DataError(f"{name}: found one {type(given).__name__}, expected a list with one entry per item, e.g. [{name[:-1]}]")
    return given


def _refs(pictures: Picture | Sequence[Picture] | None, item: int) -> Iterator[ImageRef]:
    for picture in [pictures] if isinstance(pictures, Picture) else pictures or ():
        if isinstance(picture, Image.Image):
            yield ImageRef(f"picture of item {item}", picture=picture)
        elif isinstance(picture, str | Path):
            try:
                path = Path(picture).resolve()  # the caller chose the file, so a link may lead out of its folder
            except (OSError, ValueError, RuntimeError) as error:  # name too long, NUL byte, symlink loop
                raise ImageError("missing", f"item {item}: {str(picture)!r} is no usable path: {error}") from error
            yield ImageRef(path.name, path.parent)
        else:
            raise DataError(f"item {item}: found {type(picture).__name__}, expected a path or a Pillow image")


def _encode(encoder: Encoder, side: Side, item: int, question: str | None = None) -> TokenSequence:
    try:
        return encoder.sequence(side, open_question=question)
    except DataError as error:
        raise DataError(f"item {item}: {error}") from error


def _check_limit(max_new_tokens: int) -> None:
    if max_new_tokens < 1:
        raise DataError(f"max_new_tokens = {max_new_tokens}: expected at least 1")
