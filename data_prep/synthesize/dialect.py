"""A question about images in the checkpoint's own chat format, as token ids.

The marks are read off the checkpoint's chat template (`data_prep.chat`), and all text is tokenized as plain text: an MMEB caption that
spells `<|im_end|>` does not end the turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from PIL import Image
from transformers import AutoTokenizer

from data_prep.chat import chat_marks
from data_prep.checkpoint import load_config, load_image_processor
from data_prep.plain import plain_tokenizer
from data_prep.template import Mark


@dataclass(frozen=True)
class Request:
    """What the model is asked: a text about pictures, and the seed of the answer."""

    pictures: tuple[Image.Image, ...]
    text: str
    seed: int


@dataclass(frozen=True)
class Reply:
    """What it wrote, and whether it came to an end by itself."""

    text: str
    finished: bool


class Dialect:
    """Prompt tokens for one checkpoint: a folder or a hub id of a supported family, with or without chorus tokens.

    Raises:
        DataError: no such checkpoint, another family, no image processor or no usable chat template.
    """

    def __init__(self, checkpoint: str, max_pixels: int | None = None):
        config = load_config(checkpoint)
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        self.plain = plain_tokenizer(self.tokenizer)
        self.images = load_image_processor(checkpoint, config)
        if max_pixels is not None:
            low = min(self.images.size["shortest_edge"], max_pixels)
            self.images.size = {"shortest_edge": low, "longest_edge": max_pixels}
        self.image_id = config.image_token_id
        self.chorus_ids = tuple(getattr(config, "chorus_token_ids", None) or ())
        self.marks = chat_marks(self.tokenizer, self.image_id, checkpoint)

    def ids(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        """Token ids of a prompt that ends where the answer begins; the images first.

        Args:
            image_tokens: for every image how many placeholders stand for it; vLLM wants one and multiplies it itself.
        """
        marks = self.marks
        said = self.plain.encode(text, add_special_tokens=False).ids
        images = [[*marks[Mark.IMAGE_START], *[self.image_id] * count, *marks[Mark.IMAGE_END]] for count in image_tokens]
        return [*marks[Mark.HEAD], *chain(*images), *said, *marks[Mark.ASSISTANT]]

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        return self.marks[Mark.TURN_END]
