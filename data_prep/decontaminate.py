"""Training rows that occur in evaluation data: fingerprints, the index of an evaluation, and the rule. No files and no Ray here.

A row is dropped, with the first of these reasons that holds:

    eval_image       one of its images has exactly the pixels of an evaluation image (another file format, other metadata: the same)
    eval_image_near  one of its images looks like an evaluation image: compressed again, or resized
    eval_text        its query, its positive or an answer is, as a whole, a text of an evaluation row

Near: each picture is shrunk to 8 x 8 places of red, green and blue (a block-mean hash, kept as values instead of bits, because the bits of
an even background are noise). Two are near when the root mean square of their differences is at most `Rule.near` levels of 256 and at
most `Rule.near_share` of the evaluation picture's own contrast. The second keeps pages and charts apart that are mostly white; a picture
of less contrast than `Rule.min_contrast` shows too little to be told by its look and is compared exactly only. Crops, mirror images and
drawings over a picture are not found. `tests/benchmarks/decontamination.py` prints what is found and what is dropped wrongly on the
embedded data.

Text counts where it stands alone: beside an image it is the image that tells ("How many people are there?" is asked about many). Short
texts are labels, so a text needs `Rule.min_words` words. An instruction before it does not count: a text is known by its whole and by what
follows its first colon or full stop, so "Find me an everyday image that matches the given caption: ..." is found as the caption.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from data_prep.images import open_image
from data_prep.samples import ImageRef, RawSample, Side

SIDE = 8
"""Places of a thumbnail, each way."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""A word; of scripts without spaces between words, a character."""
_HEADS = (re.compile(r":\s"), re.compile(r"\.\s"))
"""Where an instruction may end."""


@dataclass(frozen=True)
class Rule:
    """Thresholds: `near` and `min_contrast` in levels of 256, `near_share` a share of the contrast, `min_words` in words."""

    near: float = 3.0
    near_share: float = 0.3
    min_contrast: float = 2.0
    min_words: int = 6


@dataclass(frozen=True)
class Look:
    """A picture's fingerprint: `digest` of its size and pixels, and `thumbnail`, uint8 [8, 8, 3]."""

    digest: bytes
    thumbnail: np.ndarray


def look(picture: Image.Image) -> Look:
    """The fingerprint of a decoded picture, mode RGB."""
    digest = hashlib.blake2b(repr(picture.size).encode(), digest_size=16)
    digest.update(picture.tobytes())
    # Pillow's bilinear filter covers the whole area of each place, so the original size hardly matters; its box filter does not.
    return Look(digest.digest(), np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)))


def text_keys(text: str, min_words: int) -> Iterator[bytes]:
    """What a text is known by, if it is long enough: digests of its words, case and punctuation apart, with and without what may be an
    instruction before it."""
    starts = [0] + [found.end() for head in _HEADS if (found := head.search(text))]
    for start in starts:
        words = _WORD.findall(unicodedata.normalize("NFKC", text[start:]).casefold())
        if len(words) >= min_words:
            yield hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def alone(sides: Iterable[Side]) -> list[str]:
    """The texts that stand without an image."""
    return [side.text for side in sides if side.text and not side.images]


class EvaluationIndex:
    """All that an evaluation holds, for comparison: small enough to be sent to every worker (some 300 bytes an image, 100 a text).

    Args:
        looks: (place, fingerprint) of every image; the place says where it occurs, and the first of equal ones is named.
        texts: (place, text) of every text that stands alone and is not a label.
    """

    def __init__(self, looks: Iterable[tuple[str, Look]], texts: Iterable[tuple[str, str]], rule: Rule = Rule()):
        self.rule = rule
        self._images: dict[bytes, str] = {}
        thumbnails: dict[bytes, str] = {}
        for place, own in looks:
            self._images.setdefault(own.digest, place)
            thumbnails.setdefault(own.thumbnail.tobytes(), place)
        self._texts: dict[bytes, str] = {}
        for place, text in texts:
            for key in text_keys(text, rule.min_words):
                self._texts.setdefault(key, place)
        self._thumbnails_ND = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE * SIDE * 3)
        self._thumbnail_places = list(thumbnails.values())
        values_ND = self._thumbnails_ND.astype(np.float32)
        self._limits_N = np.minimum(rule.near, rule.near_share * _contrast(values_ND))
        self._means_N = values_ND.mean(axis=1)
        self._order_N = np.argsort(self._means_N, kind="stable")

    def digest(self) -> str:
        """Identifies what is compared with, and the rule."""
        entries = [*self._images.items(), *self._texts.items()]
        entries += [(row.tobytes(), place) for row, place in zip(self._thumbnails_ND, self._thumbnail_places, strict=True)]
        known = sorted((key.hex(), place) for key, place in entries)
        return hashlib.sha256(repr([SIDE, self.rule, known]).encode()).hexdigest()[:16]

    def reason(self, raw: RawSample) -> str | None:
        """Why a row may not be trained on, or None. Its code is one of eval_image, eval_image_near, eval_text.

        Raises:
            ImageError: an image of the row cannot be used.
        """
        sides = _sides(raw)
        looks = [(ref.name, look(open_image(ref))) for side in sides for ref in side.images]
        for name, own in looks:
            if own.digest in self._images:
                return f"eval_image: {name!r} has the pixels of {self._images[own.digest]}"
        for name, own in looks:
            if place := self.near(own):
                return f"eval_image_near: {name!r} looks like {place}"
        positive = [raw.positive] if raw.positive else []
        for where, texts in (
            ("query", alone([raw.query])),
            ("positive", alone(positive)),
            ("answer", [turn.answer for turn in raw.turns]),
        ):
            for key in (key for text in texts for key in text_keys(text, self.rule.min_words)):
                if key in self._texts:
                    return f"eval_text: its {where} is a text of {self._texts[key]}"
        return None

    def near(self, own: Look) -> str | None:
        """Where the nearest evaluation image that looks like this one occurs, or None."""
        values_D = own.thumbnail.reshape(-1).astype(np.float32)
        if _contrast(values_D) < self.rule.min_contrast:
            return None
        # pictures whose means differ by more than `near` differ by more than that altogether
        mean, reach = values_D.mean(), self.rule.near + 0.01
        first, stop = np.searchsorted(self._means_N, (mean - reach, mean + reach), sorter=self._order_N)
        window_M = self._order_N[first:stop]
        distances_M = np.sqrt(np.square(self._thumbnails_ND[window_M] - values_D).mean(axis=1))
        found = np.flatnonzero(distances_M <= self._limits_N[window_M])
        if not len(found):
            return None
        return self._thumbnail_places[window_M[found[np.argmin(distances_M[found])]]]


def with_pictures(raw: RawSample) -> RawSample:
    """The row with its images decoded, so that comparing and encoding decode each once.

    Raises:
        ImageError: an image cannot be used.
    """

    def opened(side: Side) -> Side:
        return replace(side, images=tuple(ImageRef(ref.name, picture=open_image(ref)) for ref in side.images))

    positive = None if raw.positive is None else opened(raw.positive)
    return replace(raw, query=opened(raw.query), positive=positive, negatives=tuple(map(opened, raw.negatives)))


def _sides(raw: RawSample) -> Sequence[Side]:
    return [raw.query, *([] if raw.positive is None else [raw.positive]), *raw.negatives]


def _contrast(values: np.ndarray) -> np.ndarray:
    """Standard deviation over places and colours, each colour about its own mean."""
    values = values.reshape(*values.shape[:-1], SIDE * SIDE, 3)
    return (values - values.mean(axis=-2, keepdims=True)).std(axis=(-2, -1))
