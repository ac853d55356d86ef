"""The model: a stock Hugging Face vision-language model read through its chorus.

Nothing inside the backbone is changed. One forward over packed rows gives, for every sequence, its embedding, and, for every answer token,
its cross-entropy; logits exist only where there is a label. The vision tower runs in every forward (the collator adds a blank image where
a batch has none), because ZeRO gathers its weights collectively and every rank must call the same modules.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, Cache, PreTrainedModel

from pipeline.batches.batch import PackedBatch
from pipeline.model.heads import AnswerLoss, LearntTemperature
from pipeline.model.mask import compression_mask
from pipeline.model.pooling import pool_chorus


class Crem(nn.Module):
    """Wraps a vision-language model; its parameters are exactly the backbone's, and the temperature where that is learnt.

    Raises:
        DataError: the backbone's output head has a bias.
    """

    def __init__(self, backbone: PreTrainedModel, learn_temperature: bool = False):
        super().__init__()
        self.backbone = backbone
        self.answer_loss = AnswerLoss(backbone.get_output_embeddings())
        self.temperature = LearntTemperature(backbone.dtype) if learn_temperature else None

    def forward(self, batch: PackedBatch) -> tuple[Tensor, ...]:
        """Both objectives' inputs from one pass (CREM, joint forward).

        Returns:
            unit-length embeddings float32 [S, D], one per sequence, and cross-entropy in nats float32 [N], one per answer token; where the
            temperature is learnt, also its log-scale float32 []. A plain tuple, since DeepSpeed hangs its backward hooks on tensors
            in tuples.
        """
        hidden_ND = self.hidden(batch).flatten(0, 1)
        loss_N = self.answer_loss(hidden_ND[batch.answer_index], batch.answer_labels)
        embeddings_SD = pool_chorus(hidden_ND, batch.chorus_index)
        return (embeddings_SD, loss_N) if self.temperature is None else (embeddings_SD, loss_N, self.temperature())

    def hidden(self, batch: PackedBatch, cache: Cache | None = None) -> Tensor:
        """Final-layer states [R, T, D] under the compression mask; keys and values are added to `cache` where one is given."""
        model = self.backbone.model
        embeds_RTD = model.get_input_embeddings()(batch.ids)
        features_PD = torch.cat(model.get_image_features(batch.pixels, batch.grids, return_dict=True).pooler_output)
        features_PD = features_PD.to(embeds_RTD.dtype)
        shown_RT = batch.ids == self.backbone.config.image_token_id
        used = int(batch.image_tokens)
        embeds_RTD = embeds_RTD.masked_scatter(shown_RT[..., None], features_PD[:used])
        if used < len(features_PD):  # the blank image: in the graph, with no influence
            embeds_RTD = embeds_RTD + 0.0 * features_PD[used:].sum()
        mask = compression_mask(batch.roles, batch.documents, batch.compressed)
        return model.language_model(
            inputs_embeds=embeds_RTD,
            attention_mask=mask,
            position_ids=batch.positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state


def load_backbone(checkpoint: str | Path, dtype: torch.dtype | str = "auto", attention: str = "sdpa") -> PreTrainedModel:
    """Open a checkpoint folder or hub id: safetensors only, no remote code."""
    return AutoModelForImageTextToText.from_pretrained(
        str(checkpoint), dtype=dtype, attn_implementation=attention, use_safetensors=True, trust_remote_code=False
    )
