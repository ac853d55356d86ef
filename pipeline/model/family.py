"""What differs between model families where images enter the language model.

    qwen2_vl, qwen2_5_vl   an image token's embedding is its feature (Qwen2-VL, arXiv 2409.12191; Qwen2.5-VL, arXiv 2502.13923)
    qwen3_vl               the same, and features of earlier vision blocks are added to the image tokens' states after the first decoder
                           layers, one level a layer (DeepStack, arXiv 2406.04334; Qwen3-VL, arXiv 2511.21631)

All else the families share, and their own modules do: `get_image_features`, `get_rope_index`, `language_model`, `lm_head`.

Shapes: R rows, T tokens a row, P image tokens of all images, the blank one included, D hidden.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.batches.batch import PackedBatch


def language_inputs(backbone: PreTrainedModel, embeds_RTD: Tensor, batch: PackedBatch) -> dict[str, Tensor | list[Tensor]]:
    """The batch's images put into its token embeddings, as keyword arguments of the family's language model.

    Every vision parameter is in the graph of the result, also where no token shows an image: the blank image's features count for
    nothing, but ranks whose backward passes differ would wait for each other (ZeRO-3) or refuse (ZeRO-2).
    """
    features_PD, *deeper = (level.to(embeds_RTD.dtype) for level in FEATURES[backbone.config.model_type](backbone.model, batch))
    used = int(batch.image_tokens)
    shown_RT = batch.ids == backbone.config.image_token_id
    embeds_RTD = embeds_RTD.masked_scatter(shown_RT[..., None], features_PD[:used])
    if used < len(features_PD):
        for level_PD in (features_PD, *deeper):
            embeds_RTD = embeds_RTD + 0.0 * level_PD[used:].sum()
    if not deeper:
        return {"inputs_embeds": embeds_RTD}
    return {
        "inputs_embeds": embeds_RTD,
        "visual_pos_masks": shown_RT,
        "deepstack_visual_embeds": [level_PD[:used] for level_PD in deeper],
    }


def _pooled(model: PreTrainedModel, batch: PackedBatch) -> list[Tensor]:
    """[features [P, D]] of the last vision block."""
    return [torch.cat(model.get_image_features(batch.pixels, batch.grids, return_dict=True).pooler_output)]


def _pooled_and_deeper(model: PreTrainedModel, batch: PackedBatch) -> list[Tensor]:
    """[features of the last vision block, of the first DeepStack block, of the second, ...], each [P, D]."""
    out = model.get_image_features(batch.pixels, batch.grids, return_dict=True)
    return [torch.cat(images) for images in (out.pooler_output, *out.deepstack_features)]


FEATURES: dict[str, Callable[[PreTrainedModel, PackedBatch], list[Tensor]]] = {
    "qwen2_vl": _pooled,
    "qwen2_5_vl": _pooled,
    "qwen3_vl": _pooled_and_deeper,
}
"""How each family's image features are read: one entry for every family in `data_prep.checkpoint.FAMILIES`."""
