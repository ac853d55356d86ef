"""Opponent: sentence-transformers' own classes on the same weights, for images, texts and both; nothing of ours runs in its `encode`.

Transformer, WordWeights (1 for the chorus, 0 for all else), Pooling (their weighted mean) and Normalize, as an exported folder names them
for texts (`pipeline.train.sentence_files`). A chat template frames pictures as well; pictures are handed over as paths, which the
library opens, resizes and cuts by its processor.
"""

import json
import shutil
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sentence_transformer.modules.word_weights import WordWeights

from data_prep.chat import chat_marks
from data_prep.encode import Encoder
from data_prep.images import resolve
from data_prep.samples import Side
from data_prep.template import IMAGE_ONLY_INSTRUCTION, Mark

STATES = {"method": "forward", "method_output_name": "last_hidden_state"}
MODALITIES = {"text": STATES, "image": STATES, ("image", "text"): STATES, "message": STATES | {"format": "structured"}}


def open_sentence(checkpoint: Path, encoder: Encoder, folder: Path) -> SentenceTransformer:
    """The checkpoint in the library's own classes, on the CPU, with the encoder's image limits; `folder` takes a copy that it can open."""
    chorus = encoder.tokenizer.convert_ids_to_tokens(list(encoder.chorus_ids[: encoder.k]))
    vocabulary = encoder.tokenizer.convert_ids_to_tokens(list(range(max(encoder.chorus_ids) + 1)))
    low, high = encoder.fingerprint()["image_rules"]["pixels"]
    backbone = Transformer(
        str(_with_processor(checkpoint, folder)),
        processor_kwargs={"min_pixels": low, "max_pixels": high},
        processing_kwargs={"chat_template": {"chat_template": _template(encoder, chorus, str(checkpoint))}},
        modality_config=MODALITIES,
        module_output_name="token_embeddings",
        model_kwargs={"attn_implementation": "sdpa", "dtype": "float32"},
    )
    weights = WordWeights(vocabulary, dict.fromkeys(chorus, 1.0), 0.0)
    pooling = Pooling(backbone.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[backbone, weights, pooling, Normalize()], device="cpu")


def item(side: Side) -> str | dict[str, str]:
    """A side as the library takes it.

    Raises:
        ValueError: more than one picture: the library's items have one.
    """
    if not side.images:
        return side.text
    if len(side.images) > 1:
        raise ValueError(f"found a side with {len(side.images)} pictures, expected one at most")
    return {"image": str(resolve(side.images[0])), "text": side.text or IMAGE_ONLY_INSTRUCTION}


def _template(encoder: Encoder, chorus: list[str], checkpoint: str) -> str:
    """`data_prep.template.render` for one message: pictures first, then the text, then the chorus."""
    marks = {mark: encoder.tokenizer.decode(ids) for mark, ids in chat_marks(encoder.tokenizer, encoder.image_id, checkpoint).items()}
    pad = encoder.tokenizer.convert_ids_to_tokens(encoder.image_id)
    picture = json.dumps(marks[Mark.IMAGE_START] + pad + marks[Mark.IMAGE_END])
    parts = "messages | map(attribute='content') | sum(start=[])"
    return (
        f"{{{{ {json.dumps(marks[Mark.HEAD])} }}}}"
        f"{{% for part in {parts} %}}{{% if part.type == 'image' %}}{{{{ {picture} }}}}{{% endif %}}{{% endfor %}}"
        f"{{% for part in {parts} %}}{{% if part.type == 'text' %}}{{{{ part.text | trim }}}}{{% endif %}}{{% endfor %}}"
        f"{{{{ {json.dumps(''.join(chorus))} }}}}"
    )


def _with_processor(checkpoint: Path, folder: Path) -> Path:
    """A copy of the checkpoint with a processor that opens without torchvision.

    Qwen2VLProcessor cannot be built without it, for its video half. PaddleOCR-VL's treats images alike and has no such half: one
    placeholder becomes as many as the image has tokens. It asks the tokenizer which that is.
    """
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("modules.json", "sentence_transformers", "processor_config.json"))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "PaddleOCRVLProcessor"}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_specific_special_tokens"] = {"image_token": "<|image_pad|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
