"""Attention of each chorus token over an image's tokens, exactly, and three figures that sum it up (CREM, Figure 4).

The kernel the model runs with (sdpa) returns no weights. So the context is read as ever and its keys and values are kept; the chorus is
then forwarded once more over them with the eager kernel, which does return them. That gives K rows of weights in place of T
(Qwen2-VL-2B at 1300 tokens, float32: 28 MB in place of 2.3 GB). It is given no mask: one unpacked prefix is plainly causal, and the
eager kernel adds a mask to the scores, so that a boolean one would hide nothing. Float32 on a CPU; a GPU runs the checkpoint's own
precision, and what bf16 does to the figures is not yet measured.

Each figure lies between 0 and 1. The paper finds maps sparse after training for retrieval alone, evenly spread and complementary in CREM:

    image mass   share of a token's attention that falls on the image at all
    entropy      of a token's map over the image, divided by that of an even map: 0 one image token, 1 evenly spread
    overlap      mean cosine between the maps of two tokens: 0 they share no image token (complementary), 1 all the same;
                 to be read beside the entropy, since even maps are alike, too

Shapes: L decoder layers, H heads, K chorus tokens, T tokens of context and chorus, I image tokens = Y x X the image's token grid,
D hidden.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from data_prep.encode import Encoder
from data_prep.samples import DataError
from data_prep.sequence import TokenSequence
from data_prep.stored import PreparedImage
from pipeline.batches.batch import PackedBatch
from pipeline.batches.collate import Collator, Job
from pipeline.evaluate.generate import split_after_chorus
from pipeline.model.crem import Crem


@torch.no_grad()
def read_chorus(model: Crem, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """The chorus of a batch that is one sequence ending with it, through the eager kernel.

    Returns:
        final-layer states [K, D], which are `model.hidden`'s, and attention weights [L, H, K, T].
    """
    assert model.chorus is None  # evaluation opens exported folders, whose embedding holds the chorus itself
    cache = DynamicCache(config=model.backbone.config.get_text_config())
    model.hidden(batch, cache)
    k = batch.chorus_index.shape[1]
    cache.crop(-k)
    language_model = model.backbone.model.language_model
    with _eager(language_model):
        out = language_model(
            inputs_embeds=model.backbone.get_input_embeddings()(batch.ids[:, -k:]),
            position_ids=batch.positions[:, :, -k:],
            past_key_values=cache,
            use_cache=True,
            output_attentions=True,
        )
    return out.last_hidden_state[0], torch.stack(out.attentions)[:, 0]


@contextmanager
def _eager(language_model: PreTrainedModel) -> Iterator[None]:
    """The language model with the kernel that returns its weights, and then as it was."""
    before = language_model.config._attn_implementation
    language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        language_model.set_attn_implementation(before)


def chorus_attention(model: Crem, collator: Collator, sequence: TokenSequence) -> Tensor:
    """Attention of each chorus token over its context and the chorus so far, mean over heads: float32 [L, K, T] on the CPU.

    Rows sum to one over the T tokens (up to the rounding of the model's precision), and are zero after the token itself.

    Raises:
        DataError: a weight is not finite (a broken checkpoint must not become a picture).
    """
    prefix, _ = split_after_chorus(sequence)
    batch = collator([[Job(prefix)]]).to(next(model.parameters()).device)
    rows_LKT = read_chorus(model, batch)[1].float().mean(dim=1).cpu()
    if not torch.isfinite(rows_LKT).all():
        raise DataError("attention weights are not finite; expected numbers: the checkpoint is broken")
    return rows_LKT


@dataclass(frozen=True)
class ImageMaps:
    """What the chorus looks at of one image."""

    image: PreparedImage
    maps_KYX: Tensor
    """float32, each token's attention within the image: sums to one, or is zero where none falls on it."""
    mass_K: Tensor
    """float32, share of each token's attention that falls on this image."""
    even_mass_K: Tensor
    """float32, what that share would be if every token looked evenly at all it can see."""

    def figures(self) -> dict[str, float]:
        """Mean image mass, even image mass and entropy of the tokens, and their overlap where there are two or more."""
        means = {"image_mass": self.mass_K, "even_mass": self.even_mass_K, "entropy": entropy(self.maps_KYX)}
        both = overlap(self.maps_KYX)
        return {name: float(values.mean()) for name, values in means.items()} | ({} if both is None else {"overlap": both})


def image_maps(rows_KT: Tensor, sequence: TokenSequence, encoder: Encoder) -> list[ImageMaps]:
    """The sequence's images, in order, with their part of attention rows over context and chorus; image tokens stand row by row."""
    chorus, tokens = rows_KT.shape
    places_I = np.flatnonzero(sequence.ids == encoder.image_id)
    visible_K = torch.arange(tokens - chorus + 1, tokens + 1)
    out = []
    for image in sequence.images:
        height, width = image.height // encoder.factor, image.width // encoder.factor
        own_I, places_I = places_I[: height * width], places_I[height * width :]
        seen_KI = rows_KT[:, own_I]
        mass_K = seen_KI.sum(dim=1)
        maps_KI = seen_KI / mass_K[:, None].clamp_min(torch.finfo(torch.float32).tiny)
        out.append(ImageMaps(image, maps_KI.unflatten(1, (height, width)), mass_K, len(own_I) / visible_K))
    return out


def entropy(maps_KYX: Tensor) -> Tensor:
    """- sum p ln p / ln(Y X) of each map, float32 [K]: 0 where one image token gets all, 1 where all get the same, or there is one only."""
    maps_KI = maps_KYX.flatten(1)
    if maps_KI.shape[1] == 1:
        return torch.ones(len(maps_KI))
    return torch.special.entr(maps_KI).sum(dim=1) / math.log(maps_KI.shape[1])


def overlap(maps_KYX: Tensor) -> float | None:
    """Mean cosine over the pairs of maps: 0 disjoint, 1 the same; None for a single map."""
    unit_KI = F.normalize(maps_KYX.flatten(1), dim=1)
    cosines_KK = unit_KI @ unit_KI.T
    pairs = torch.triu_indices(*cosines_KK.shape, offset=1)
    return float(cosines_KK[pairs[0], pairs[1]].mean()) if pairs.shape[1] else None
