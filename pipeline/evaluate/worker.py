"""Units -> results, as bytes: the same bytes in whichever process, and after whatever else it has computed."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from data_prep.encode import Encoder
from data_prep.images import image_bytes
from data_prep.samples import DataError, ImageRef
from data_prep.sequence import TokenSequence
from pipeline.evaluate import identity
from pipeline.evaluate.embed import embed
from pipeline.evaluate.generate import Answer
from pipeline.evaluate.open import Opened, open_checkpoint
from pipeline.evaluate.units import Item, Unit, item_digest, unusable


@dataclass(frozen=True)
class Job:
    """What every worker is told. `k`: chorus tokens used, None: all; `numerics`: what the units' keys say of its arithmetic."""

    checkpoint: str
    k: int | None
    numerics: dict


class Worker:
    """Opens the checkpoint with its first unit and keeps it.

    Args:
        opened: gives the checkpoint where this process has it already, or will need it again.
    """

    def __init__(self, job: Job, opened: Callable[[], Opened] | None = None):
        self.job = job
        self._open = opened or self._from_disk
        self._opened: Opened | None = None

    def work(self, units: Sequence[Unit]) -> list[bytes]:
        """The results of the units, each computed alone.

        Raises:
            DataError: this process computes otherwise than the keys say, an image cannot be used or has changed, or an embedding is not
                finite.
        """
        if (found := identity.numerics()) != self.job.numerics:
            raise DataError(
                f"found a worker with {found}, expected {self.job.numerics}: its results could differ in their last bits. "
                "Evaluate on machines of one kind, with the same libraries"
            )
        with identity.one_thread():
            self._opened = self._opened or self._open()
            return [compute(unit, self._opened) for unit in units]

    def _from_disk(self) -> Opened:
        return open_checkpoint(self.job.checkpoint, Encoder(self.job.checkpoint, baseline=True).shortened(self.job.k))


def compute(unit: Unit, opened: Opened) -> bytes:
    """One unit's result."""
    encoder = opened.encoder.with_settings(unit.settings)
    sequences = [encode(encoder, item, digest) for item, digest in zip(unit.items, unit.digests, strict=True)]
    if unit.mode == "embed":
        file = io.BytesIO()
        np.save(file, embed(opened.model, opened.collator, sequences, title=unit.task).numpy())
        return file.getvalue()
    answers = opened.answerer.answer(sequences, unit.mode, unit.limit)
    return json.dumps([asdict(answer) for answer in answers]).encode()


def encode(encoder: Encoder, item: Item, digest: str) -> TokenSequence:
    """An item's tokens and images, of the very bytes that `digest` was made of.

    Raises:
        DataError: an image cannot be used, or its file has changed.
    """
    try:
        images = tuple(ImageRef(ref.name, data=image_bytes(ref)) for ref in item.side.images)
        if item_digest(item, [hashlib.sha256(ref.data).hexdigest() for ref in images]) != digest:
            raise DataError("found an image file that has changed since this evaluation began; evaluate again")
        return encoder.sequence(replace(item.side, images=images), open_question=item.question)
    except DataError as error:
        raise unusable(item, error) from error


def vectors(result: bytes) -> np.ndarray:
    """Embeddings from a result: float32 [items, D]."""
    return np.load(io.BytesIO(result), allow_pickle=False)


def answers(result: bytes) -> list[Answer]:
    """Answers from a result, in the items' order."""
    return [Answer(**answer) for answer in json.loads(result)]
