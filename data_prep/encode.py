"""RawSample -> token ids, roles and resized images: everything the model needs, decided once, by the checkpoint's own rules.

`Encoder` holds a tokenizer, an image processor's sizing rules and the chorus ids, all read from the checkpoint folder. Training
shards and evaluation prompts are both made here, so a prompt cannot differ between the two.

Invariant: special ids enter a sequence only through `template.Mark`, image and chorus slots. Text is tokenized by a tokenizer that knows
no added token (`plain.plain_tokenizer`), so data that spells `<|image_pad|>` or `<|im_end|>` stays plain text.

Length: an image, the chorus and an answer are whole or not there at all. A training row that is longer than `max_tokens` first loses its
last turns, all but one, then the end of a side's text, down to `min_text_tokens`; if that is not enough, the row is set aside. Evaluation
and inference never shorten anything.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from data_prep.chat import chat_marks
from data_prep.checkpoint import chorus_ids, has_chorus, load_config, load_image_processor
from data_prep.chorus import chorus_size
from data_prep.images import open_image
from data_prep.plain import first_tokens, plain_tokenizer
from data_prep.samples import DataError, ImageRef, RawSample, Side, Turn
from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from data_prep.stored import STORED_AS, PreparedImage, store
from data_prep.template import ChorusSlot, ImageSlot, Mark, Segment, render


class EncodeSettings(BaseModel):
    """What decides the content of a sequence beside the checkpoint and the data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_pixels: int | None = Field(default=None, gt=0)
    """Smallest image area in pixels; None takes the checkpoint's own."""
    max_pixels: int | None = Field(default=None, gt=0)
    """Largest image area in pixels; None takes the checkpoint's own (for training at scale: 1280 tokens x `Encoder.factor` squared)."""
    max_tokens: int = Field(default=4096, gt=0)
    """Longest sequence in tokens; a longer training row is shortened by the rule above or set aside."""
    min_text_tokens: int = Field(default=64, gt=0)
    """A side's text is not shortened to fewer tokens than this."""


@dataclass(frozen=True)
class EncodedSample:
    """One training row: `query` (with PROMPT and ANSWER tokens if the sample has turns), `positive`, `negatives`."""

    id: str
    source: str
    query: TokenSequence
    positive: TokenSequence | None
    negatives: tuple[TokenSequence, ...]
    shortened: tuple[str, ...] = ()
    """What the row lost to `max_tokens`: "turns", "text", both or nothing."""


class TooLongError(DataError):
    """A sequence exceeds `max_tokens`, and nothing that may be shortened is left; the row is set aside."""


class Encoder:
    """Turns sides and conversations into `TokenSequence`s for one checkpoint.

    Args:
        checkpoint: folder or hub id of a checkpoint that has chorus tokens.
        settings: pixel and length limits.
        baseline: whether a checkpoint without chorus tokens is taken, too. Nothing is added to its prompts then, and what it is asked is
            its own chat format: the last token of a context has the chorus's role, so that its state is pooled (last-token pooling).

    Raises:
        DataError: no such checkpoint, one of another family, one without chorus tokens (unless `baseline`), image processor or chat
            template, or contradictory pixel limits.
    """

    def __init__(self, checkpoint: str | Path, settings: EncodeSettings = EncodeSettings(), baseline: bool = False):
        checkpoint = str(checkpoint)
        self.settings = settings
        config = load_config(checkpoint)
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        self.plain = plain_tokenizer(self.tokenizer)
        self.images = load_image_processor(checkpoint, config)
        self.chorus_ids = chorus_ids(config, checkpoint) if has_chorus(config) or not baseline else ()
        self.k = len(self.chorus_ids)
        self.image_id = config.image_token_id
        self.marks = chat_marks(self.tokenizer, self.image_id, checkpoint)
        low, high = self._pixel_limits()
        if low > high:
            raise DataError(f"min_pixels = {low}, max_pixels = {high}: expected min_pixels at most max_pixels; {checkpoint} sets the other")

    def shortened(self, k: int | None) -> "Encoder":
        """The same encoder, writing the first `k` of the chorus tokens into every sequence; None: all of them.

        Raises:
            DataError: the checkpoint does not have that many.
        """
        other = copy.copy(self)  # tokenizer, image rules and the frame's tokens are shared
        other.k = chorus_size(k, len(self.chorus_ids))
        return other

    @property
    def baseline(self) -> bool:
        """Whether the checkpoint has no chorus, so that a context's last token is pooled."""
        return not self.chorus_ids

    def with_settings(self, settings: EncodeSettings) -> "Encoder":
        """The same encoder with other limits."""
        other = copy.copy(self)
        other.settings = settings
        return other

    def with_image_tokens(self, least: int | None, most: int | None) -> "Encoder":
        """The same encoder with other limits for an image, in image tokens; None, and whatever the settings state in pixels, stays.

        A benchmark's protocol sets these; a limit that a person set wins, and pulls the other along where they would contradict.
        """
        area = self.factor**2
        low, high = self._pixel_limits()
        low = low if self.settings.min_pixels or least is None else least * area
        high = high if self.settings.max_pixels or most is None else most * area
        low, high = (low, max(low, high)) if self.settings.min_pixels else (min(low, high), high)
        return self.with_settings(self.settings.model_copy(update={"min_pixels": low, "max_pixels": high}))

    @property
    def factor(self) -> int:
        """Pixels per side of one image token: patch size x merge size."""
        return self.images.patch_size * self.images.merge_size

    def fingerprint(self) -> dict:
        """What a shard's content depends on: digests of tokenizer and template, sizing rules, chorus ids. JSON-ready."""
        return {
            "tokenizer": _digest(self.tokenizer.backend_tokenizer.to_str()),
            "template": _digest(repr([_TEMPLATE_PROBE, *self.marks.items()])),
            "chorus_ids": list(self.chorus_ids[: self.k]),
            "image_id": self.image_id,
            "image_rules": {
                "pixels": list(self._pixel_limits()),
                "patch_size": self.images.patch_size,
                "merge_size": self.images.merge_size,
                "resample": int(self.images.resample),
                "stored_as": STORED_AS,
            },
            "max_tokens": self.settings.max_tokens,
            "min_text_tokens": self.settings.min_text_tokens,
        }

    def sample(self, raw: RawSample) -> EncodedSample:
        """Encode every side of a row, shortened where it is too long.

        Raises:
            DataError: an image is missing, broken or refused, or a sequence is too long even when shortened; the row is to be set aside.
        """
        query, lost = self._fitted(raw.query, raw.turns)
        positive, lost_positive = (None, set()) if raw.positive is None else self._fitted(raw.positive)
        negatives = [self._fitted(side) for side in raw.negatives]
        lost = lost.union(lost_positive, *(own for _, own in negatives))
        return EncodedSample(raw.id, raw.source, query, positive, tuple(sequence for sequence, _ in negatives), tuple(sorted(lost)))

    def sequence(self, side: Side, turns: tuple[Turn, ...] = (), open_question: str | None = None) -> TokenSequence:
        """Tokens of a side, its turns, and optionally a last question left open (see `template.render`), whole.

        Raises:
            TooLongError: more than `max_tokens`.
            DataError: an image or a text cannot be used.
        """
        sequence = self._assemble(side, turns, open_question, self._images(side))
        if len(sequence) > self.settings.max_tokens:
            raise self._too_long(len(sequence))
        return sequence

    def length(self, side: Side, sizes: Sequence[tuple[int, int]], open_question: str | None = None) -> int:
        """Tokens of `sequence` of the same side, without decoding an image.

        Args:
            sizes: width and height in pixels of each of the side's images; which is which makes no difference.

        Raises:
            TooLongError: more than `max_tokens`.
            DataError: a text or an image's shape cannot be used.
        """
        images = tuple(PreparedImage(b"", *self._resized(height, width)) for width, height in sizes)
        tokens = len(self._assemble(side, (), open_question, images))
        if tokens > self.settings.max_tokens:
            raise self._too_long(tokens)
        return tokens

    def _fitted(self, side: Side, turns: tuple[Turn, ...] = ()) -> tuple[TokenSequence, set[str]]:
        """The sequence, shortened by the rule until it fits, and what it lost; raises `TooLongError` where that is not possible."""
        images, limit = self._images(side), self.settings.max_tokens
        sequence = whole = self._assemble(side, turns, None, images)
        lost = set()
        while len(sequence) > limit and len(turns) > 1:
            turns = turns[:-1]
            sequence = self._assemble(side, turns, None, images)
            lost = {"turns"}
        keep = len(self.plain_text_ids(side.text))
        while len(sequence) > limit:
            keep -= len(sequence) - limit  # a shortened text can fall into more pieces than it had, so more than one step may be needed
            text = first_tokens(self.plain, side.text, keep) if keep >= self.settings.min_text_tokens else ""
            if not text:  # or its first character alone takes more tokens than are left
                raise self._too_long(len(whole))
            sequence = self._assemble(Side(text, side.images), turns, None, images)
            lost |= {"text"}
        return sequence, lost

    def _too_long(self, length: int) -> TooLongError:
        return TooLongError(f"too_long: {length} tokens, expected at most {self.settings.max_tokens}; raise max_tokens or lower max_pixels")

    def _images(self, side: Side) -> tuple[PreparedImage, ...]:
        return tuple(self.image(ref) for ref in side.images)

    def _assemble(
        self, side: Side, turns: tuple[Turn, ...], open_question: str | None, images: tuple[PreparedImage, ...]
    ) -> TokenSequence:
        ids: list[int] = []
        roles: list[int] = []
        own_format = self.baseline and (turns or open_question is not None)  # an embedding instruction is for what is embedded
        for segment in render(side, turns, open_question, instruct=not own_format):
            new = self._segment_ids(segment, images)
            ids += new
            roles += [segment.role] * len(new)
            if self.baseline and isinstance(segment.content, ChorusSlot):
                roles[-1] = Role.CHORUS  # the last token of the context: it takes part as any other, and is pooled
        return TokenSequence(np.asarray(ids, np.int32), np.asarray(roles, np.uint8), images)

    def image(self, ref: ImageRef) -> PreparedImage:
        """Decode safely and resize by the model's own rule (smart_resize and resampling filter of its image processor)."""
        image = open_image(ref)
        height, width = self._resized(image.height, image.width)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling(self.images.resample))
        return store(image)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that the model is shown."""
        low, high = self._pixel_limits()
        height, width = smart_resize(height, width, self.factor, low, high)
        return max(height, self.factor), max(width, self.factor)  # a thin image can round to zero

    def _pixel_limits(self) -> tuple[int, int]:
        size = self.images.size
        return self.settings.min_pixels or size["shortest_edge"], self.settings.max_pixels or size["longest_edge"]

    def _segment_ids(self, segment: Segment, images: tuple[PreparedImage, ...]) -> list[int]:
        content = segment.content
        if isinstance(content, Mark):
            return list(self.marks[content])
        if isinstance(content, ChorusSlot):
            return list(self.chorus_ids[: self.k])
        if isinstance(content, ImageSlot):
            image = images[content.index]
            return [self.image_id] * (image.height // self.factor * (image.width // self.factor))
        return self.plain_text_ids(content)

    def plain_text_ids(self, text: str) -> list[int]:
        """Token ids of `text` as plain text: what looks like a special token is spelt out in ordinary pieces.

        Raises:
            DataError: `text` is not valid Unicode (a lone surrogate, as broken JSON escapes make them).
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"text: found {text[error.start : error.end]!r}, which is no Unicode character; mend the source") from error
        return self.plain.encode(text, add_special_tokens=False).ids


_TEMPLATE_PROBE = [
    render(Side("text", (ImageRef("image"),)), (Turn("first", "answer"), Turn("second", "answer")), "open"),
    render(Side(images=(ImageRef("image"),)), open_question="open"),
]
"""What the template makes of every kind of part; its digest changes when the wording does, not when a comment does."""


def fingerprint_digest(fingerprint: dict) -> str:
    """One short digest of a fingerprint; equal exactly when every entry is equal."""
    return _digest(json.dumps(fingerprint, sort_keys=True))


def to_row(sample: EncodedSample) -> dict:
    """A row of `schema.ROW`; an image that several sequences show is stored once."""
    images: list[PreparedImage] = []

    def struct(sequence: TokenSequence) -> dict:
        places = []
        for image in sequence.images:
            if image not in images:
                images.append(image)
            places.append(images.index(image))
        return {"ids": sequence.ids, "roles": sequence.roles, "images": places}

    return {
        "id": sample.id,
        "source": sample.source,
        "query": struct(sample.query),
        "positive": None if sample.positive is None else struct(sample.positive),
        "negatives": [struct(negative) for negative in sample.negatives],
        "images": [asdict(image) for image in images],
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
