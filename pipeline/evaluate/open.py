"""A checkpoint made ready to embed and to answer: the same way for scores and for the inference API."""

from dataclasses import dataclass
from pathlib import Path

import torch

from data_prep.encode import Encoder
from pipeline.batches.collate import Collator
from pipeline.evaluate.generate import Answerer
from pipeline.model.crem import Crem, load_backbone


@dataclass(frozen=True)
class Opened:
    """One checkpoint in memory, in evaluation mode."""

    encoder: Encoder
    model: Crem
    collator: Collator
    answerer: Answerer


def open_checkpoint(checkpoint: str | Path, encoder: Encoder, device: torch.device | str | None = None) -> Opened:
    """Load the weights that belong to `encoder`; the first GPU where there is one and no device is named.

    CPUs compute exactly in float32; GPUs run the checkpoint's own precision.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = Crem(load_backbone(checkpoint, torch.float32 if device.type == "cpu" else "auto")).to(device).eval()
    return assemble(encoder, model)


def assemble(encoder: Encoder, model: Crem) -> Opened:
    """Collator and answerer for a model that is loaded already."""
    backbone = model.backbone
    collator = Collator(encoder.images, backbone.model.get_rope_index, encoder.image_id, encoder.tokenizer.pad_token_id)
    stop = backbone.generation_config.eos_token_id
    stop = {stop} if isinstance(stop, int) else set(stop)
    banned = {*encoder.chorus_ids, encoder.image_id, backbone.config.video_token_id}
    answerer = Answerer(model, collator, encoder.tokenizer, stop, banned)
    return Opened(encoder, model, collator, answerer)
