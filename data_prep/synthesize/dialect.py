"""A question about an image in the checkpoint's own chat format, as token ids.

The marks are read off the checkpoint's chat template (`data_prep.chat`), and all text is tokenized as plain text: an MMEB caption that
spells `<|im_end|>` does not end the turn.
"""

from dataclasses import dataclass

from PIL import Image
from transformers import AutoTokenizer

from data_prep.chat import chat_marks
from data_prep.checkpoint import load_config, load_image_processor
from data_prep.template import Mark


@dataclass(frozen=True)
class Request:
    """What the model is asked: a text about a picture, and the seed of the answer."""

    picture: Image.Image
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
        self.images = load_image_processor(checkpoint, config)
        if max_pixels is not None:
            low = min(self.images.size["shortest_edge"], max_pixels)
            self.images.size = {"shortest_edge": low, "longest_edge": max_pixels}
        self.image_id = config.image_token_id
        self.chorus_ids = tuple(getattr(config, "chorus_token_ids", None) or ())
        self.marks = chat_marks(self.tokenizer, self.image_id, checkpoint)

    def ids(self, text: str, image_tokens: int = 1) -> list[int]:
        """Token ids of a prompt that ends where the answer begins; the image first.

        Args:
            image_tokens: how many placeholders stand for the image; vLLM wants one and multiplies it itself.
        """
        marks = self.marks
        plain = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        image = [*marks[Mark.IMAGE_START], *[self.image_id] * image_tokens, *marks[Mark.IMAGE_END]]
        return [*marks[Mark.HEAD], *image, *plain, *marks[Mark.ASSISTANT]]

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        return self.marks[Mark.TURN_END]
