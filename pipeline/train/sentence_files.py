"""Files with which `SentenceTransformer(folder)` opens an exported folder, for texts, with nothing of this project installed.

    0 Transformer   the language model; a chat template made from `data_prep.template` frames each text and ends with the chorus
    1 WordWeights   1 for a chorus token, 0 for every other token
    2 Pooling       weighted mean over tokens: the mean over the chorus
    3 Normalize     unit length

All four are sentence-transformers' own classes, because release 6 imports a class of any other package only with
trust_remote_code=True, for local folders, too (its `util/misc.py`, `import_module_class`). They lie in a subfolder with a tokenizer of
their own: beside an image processor, the library would ask for the processor of the whole family, whose video half needs torchvision.
The weights are not stored twice; an index names the file above. So the folder can be copied anywhere, but has to be local.

What the stock classes cannot do: images (`pipeline.sentence` can), and text that spells a special token, which they take for that token.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from data_prep.chat import chat_marks
from data_prep.samples import Side
from data_prep.shards import write_json
from data_prep.template import ChorusSlot, Mark, Segment, render

FOLDER = "sentence_transformers"
MODULES = (
    ("0_Transformer", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_WordWeights", "sentence_transformers.sentence_transformer.modules.word_weights.WordWeights"),
    ("2_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
    ("3_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
)
"""Folder and class of each module, in order."""


def write_sentence_files(folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the files to a saved model's folder (config.json, safetensors); nothing that lies there already is changed."""
    chorus = tokenizer.convert_ids_to_tokens(config.chorus_token_ids)
    own = [folder / FOLDER / name for name, _ in MODULES]
    for path in own:
        path.mkdir(parents=True)
    _write_transformer(own[0], folder, config, tokenizer, chorus)
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(max(config.chorus_token_ids) + 1)))
    write_json(own[1] / "config.json", {"vocab": vocabulary, "word_weights": dict.fromkeys(chorus, 1.0), "unknown_word_weight": 0.0})
    write_json(own[2] / "config.json", {"embedding_dimension": config.get_text_config().hidden_size, "pooling_mode": "mean"})
    write_json(own[3] / "config.json", {})
    modules = [{"idx": i, "name": str(i), "path": f"{FOLDER}/{name}", "type": kind} for i, (name, kind) in enumerate(MODULES)]
    write_json(folder / "modules.json", modules)
    facts = {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine", "prompts": {}, "default_prompt_name": None}
    write_json(folder / "config_sentence_transformers.json", facts)


def chat_template(marks: Mapping[Mark, str], chorus: Sequence[str]) -> str:
    """The frame of a text-only side as Jinja; all messages' contents, joined, are its text (a prompt comes first)."""
    return "".join("{{ " + _expression(segment, marks, chorus) + " }}" for segment in render(Side("text")))


def _expression(segment: Segment, marks: Mapping[Mark, str], chorus: Sequence[str]) -> str:
    if isinstance(segment.content, Mark):
        return json.dumps(marks[segment.content])
    if isinstance(segment.content, ChorusSlot):
        return json.dumps("".join(chorus))
    return "messages | map(attribute='content') | join('') | trim"


def _write_transformer(path: Path, folder: Path, config: PreTrainedConfig, tokenizer, chorus: Sequence[str]) -> None:
    config.save_pretrained(path)
    tokenizer.save_pretrained(path)
    write_json(path / "processor_config.json", {"processor_class": "AutoTokenizer"})
    place = {}
    for weights in sorted(folder.glob("*.safetensors")):
        with safe_open(weights, "pt") as file:
            place |= dict.fromkeys(file.keys(), f"../../{weights.name}")
    write_json(path / "model.safetensors.index.json", {"metadata": {}, "weight_map": place})
    marks = {mark: tokenizer.decode(ids) for mark, ids in chat_marks(tokenizer, config.image_token_id, str(folder)).items()}
    states = {"method": "forward", "method_output_name": "last_hidden_state"}
    settings = {
        "transformer_task": "feature-extraction",
        "module_output_name": "token_embeddings",
        "modality_config": {"text": states, "message": states | {"format": "flat"}},
        "processing_kwargs": {"chat_template": {"chat_template": chat_template(marks, chorus)}},
        "unpad_inputs": False,
    }
    write_json(path / "sentence_bert_config.json", settings)
