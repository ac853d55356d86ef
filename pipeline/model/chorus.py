"""Give a checkpoint its chorus: K new special tokens whose embeddings are learnt like any other row of the vocabulary.

Done once, offline, on CPU, before any distributed job (resizing under ZeRO-3 is a known way to lose weights). The ids are the
first rows above the tokenizer; published Qwen-VL checkpoints have hundreds to spare, so nothing is resized there. The new rows start
at the mean of the embedding plus noise of its own standard deviation per dimension, scaled down: near the distribution the
decoder knows, yet distinct from each other [the paper does not state its initialisation].

config.json gains `chorus_token_ids`; that entry is what every later stage reads.
"""

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from data_prep.checkpoint import load_config, load_image_processor
from data_prep.samples import DataError
from data_prep.shards import atomic_folder

NOISE = 0.5
"""Standard deviation of a new row around the mean embedding, in units of the embedding's own deviation per dimension."""

END_OF_SEQUENCE = "<|endoftext|>"
"""What is pooled where there is no chorus: all supported families have it."""


def add_chorus(checkpoint: str | Path, folder: Path, k: int = 16, seed: int = 0) -> list[int]:
    """Copy `checkpoint` to `folder` with `k` chorus tokens added to tokenizer, embedding and config.

    k = 0 is end-of-sequence pooling, the paper's baseline "no compression prompt": nothing is added, the weights stay as they are, and
    the end-of-sequence token takes the chorus's place. Its state after an untouched backbone is plain last-token pooling.

    Returns:
        The ids of the chorus tokens; for k = 0, that of the end-of-sequence token.

    Raises:
        DataError: the checkpoint has chorus tokens already or is of a family that is not supported, or `folder` exists.
    """
    checkpoint = str(checkpoint)
    if k < 0:
        raise DataError(f"k = {k}: expected at least one chorus token, or 0 for end-of-sequence pooling")
    if folder.exists():
        raise DataError(f"{folder} exists: expected a new folder; remove it or name another")
    config = load_config(checkpoint)
    if getattr(config, "chorus_token_ids", None):
        raise DataError(f"{checkpoint} has chorus tokens already; start from the checkpoint it was made from")
    images = load_image_processor(checkpoint, config)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, trust_remote_code=False, use_safetensors=True, dtype="auto")
    ids = _add_rows(model, tokenizer, k, seed) if k else [tokenizer.convert_tokens_to_ids(END_OF_SEQUENCE)]
    model.config.chorus_token_ids = ids
    with atomic_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        images.save_pretrained(unfinished)
    return ids


def _add_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, k: int, seed: int) -> list[int]:
    """New special tokens and their rows; the embedding is resized only where it has no row to spare."""
    names = [f"<|chorus_{i}|>" for i in range(k)]
    tokenizer.add_tokens(names, special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(names)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    _initialise(model, ids, used=ids[0], seed=seed)
    return ids


@torch.no_grad()
def _initialise(model: torch.nn.Module, ids: list[int], used: int, seed: int) -> None:
    """Write the rows `ids` of input and (if untied) output embedding; statistics over the `used` rows below."""
    generator = torch.Generator().manual_seed(seed)
    for weight_VD in {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
        known_VD = weight_VD[:used].float()
        noise_KD = torch.randn(len(ids), known_VD.shape[1], generator=generator)
        weight_VD[ids] = (known_VD.mean(0) + NOISE * known_VD.std(0) * noise_KD).to(weight_VD.dtype)
