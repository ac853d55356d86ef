"""The model: a stock Hugging Face vision-language model read through its chorus.

Nothing inside the backbone is changed but how patches meet their matrix (`model.patches`). One forward over packed rows gives, for every
sequence, its embedding, and, for every answer token, its cross-entropy; logits exist only where there is a label, a block of the vocabulary
at a time. The vision tower runs in every forward (the collator adds a blank image where a batch has none), because ZeRO gathers its
weights collectively and every rank must call the same modules.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, Cache, PreTrainedModel

from data_prep.checkpoint import load_config
from pipeline.batches.batch import PackedBatch
from pipeline.model import two_causal
from pipeline.model.chorus_rows import ChorusRows, embed_chorus
from pipeline.model.family import language_inputs
from pipeline.model.heads import AnswerLoss, LearntTemperature
from pipeline.model.mask import compression_mask
from pipeline.model.patches import as_matrix_product
from pipeline.model.pooling import pool_chorus
from pipeline.model.two_causal import Pieces


class Crem(nn.Module):
    """Wraps a vision-language model; its parameters are the backbone's, and what little may train beside it.

    Args:
        chorus: stands in for the embedding's own chorus rows (see `model.trainable`); None: those rows are used.
        learn_temperature: whether the contrastive temperature is a parameter.

    Raises:
        DataError: the backbone's output head has a bias.
    """

    def __init__(self, backbone: PreTrainedModel, chorus: ChorusRows | None = None, learn_temperature: bool = False):
        super().__init__()
        self.backbone = backbone
        self.chorus = chorus
        self.answer_loss = AnswerLoss(backbone.get_output_embeddings(), getattr(backbone.config, "chorus_token_ids", ()))
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
        """Final-layer states [R, T, D] under the compression mask; keys and values are added to `cache` where one is given.

        What the cache holds already, R rows of it, every token sees: it stands before all sequences (`evaluate.shared_head`).
        """
        model = self.backbone.model
        embeds_RTD = model.get_input_embeddings()(batch.ids)
        if self.chorus is not None:
            embeds_RTD = embed_chorus(self.chorus(), self.chorus.token_ids, batch.ids, embeds_RTD)
        return model.language_model(
            **language_inputs(self.backbone, embeds_RTD, batch),
            **self._who_sees_whom(batch, 0 if cache is None else cache.get_seq_length()),
            position_ids=batch.positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def _who_sees_whom(self, batch: PackedBatch, before: int) -> dict[str, Tensor | Pieces | None]:
        """The compression rule, and `before` places that all see, as keyword arguments in the form that the attention takes them."""
        rule = (batch.roles, batch.documents, batch.compressed)
        if self.backbone.model.language_model.config._attn_implementation == two_causal.NAME and not before:
            # what the language model does not know it hands on to its layers, and they to the attention
            return {"attention_mask": None, "pieces": two_causal.cut(*rule)}
        return {"attention_mask": F.pad(compression_mask(*rule), (before, 0), value=True)}


def load_backbone(checkpoint: str | Path, dtype: torch.dtype | str = "auto", attention: str = "sdpa") -> PreTrainedModel:
    """Open a checkpoint folder or hub id: safetensors only, no remote code.

    Args:
        attention: of the language model; the vision tower, where every image token sees its whole image, keeps sdpa.

    Raises:
        DataError: there is no such checkpoint, or its family is not supported.
    """
    load_config(checkpoint)  # refuses before any weight is read
    backbone = AutoModelForImageTextToText.from_pretrained(
        str(checkpoint),
        dtype=dtype,
        attn_implementation={"": "sdpa", "text_config": attention, "vision_config": "sdpa"},
        use_safetensors=True,
        trust_remote_code=False,
    )
    as_matrix_product(backbone.model.visual.patch_embed.proj)
    return backbone
