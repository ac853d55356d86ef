"""CREM as a sentence-transformers module, for images beside texts. The only file that imports sentence_transformers.

    from sentence_transformers import SentenceTransformer
    from pipeline.sentence import ChorusEmbedder

    model = SentenceTransformer(modules=[ChorusEmbedder.open("work/run/export")])
    vectors = model.encode(["a red circle", Image.open("photo.png"), {"image": "photo.png", "text": "Find its caption."}])

trust_remote_code is not needed: the class is passed by the caller, not named by the folder. For texts alone this project is not needed
either: `SentenceTransformer("work/run/export")` opens the folder with stock modules (`pipeline.train.sentence_files`).

An item is a text (every str is one), an opened Pillow image, or a dict of `text` and `image` (a path, a Pillow image, or a list of them).
A prompt is put before an item's text. Vectors are those of `CremModel.embed`; training goes through `pipeline.train`, not through here.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from data_prep.samples import DataError
from pipeline.inference import CremModel


class ChorusEmbedder(InputModule):
    """The whole model as the one module of a SentenceTransformer.

    Args:
        model: an opened checkpoint.
        k: chorus tokens that are pooled; all of them where none is named.
    """

    def __init__(self, model: CremModel, k: int | None = None):
        super().__init__()
        self.crem, self.k = model, k
        self.backbone = model.opened.model  # a submodule, so that the library moves it between devices
        self.tokenizer = model.opened.encoder.tokenizer

    @classmethod
    def open(cls, checkpoint: str | Path, k: int | None = None) -> "ChorusEmbedder":
        """Open an exported folder (see `CremModel.open`)."""
        return cls(CremModel.open(checkpoint, device="cpu"), k)

    @property
    def modalities(self) -> list:
        """What an item may hold; "message" is the library's name for a batch of mixed items (chat messages are refused in `preprocess`)."""
        return ["text", "image", ("image", "text"), ("text", "image"), "message"]

    def preprocess(self, inputs: Sequence, prompt: str | None = None, **kwargs) -> dict:
        """Images and texts of the items; nothing is encoded before `forward`, which knows the device.

        Raises:
            DataError: an item is none of the kinds above.
        """
        parts = [_parts(item, number) for number, item in enumerate(inputs)]
        return {"images": [image for image, _ in parts], "texts": [(prompt or "") + text for _, text in parts]}

    def forward(self, features: dict, **kwargs) -> dict[str, Tensor]:
        """Adds `sentence_embedding`, unit-length float32 [N, D]."""
        vectors_ND = self.crem.embed(features["images"], features["texts"], self.k)
        return features | {"sentence_embedding": vectors_ND.to(next(self.parameters()).device)}

    def get_embedding_dimension(self) -> int:
        """D."""
        return self.backbone.backbone.config.get_text_config().hidden_size

    def save(self, output_path: str, *args, **kwargs) -> None:
        """Write the checkpoint: it opens with `from_pretrained` and with `open` above (the library would ask for trust_remote_code)."""
        encoder = self.crem.opened.encoder
        for part in (self.backbone.backbone, encoder.tokenizer, encoder.images):
            part.save_pretrained(output_path)


def _parts(item: object, number: int) -> tuple[object, str]:
    """Image or images (None: without) and text of one item."""
    if isinstance(item, str):
        return None, item
    if isinstance(item, Image.Image):
        return item, ""
    if isinstance(item, dict) and item and item.keys() <= {"image", "text"}:
        return item.get("image"), item.get("text") or ""
    raise DataError(f"item {number}: found {type(item).__name__}, expected a text, a Pillow image, or a dict of image and text")
