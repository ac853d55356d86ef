"""The ceiling: the model alone, on as many tokens, patches and answer tokens a step as the trainer's own layout has, without any padding.

Sequences of one constant length (the layout's mean), plain causal attention, the language model's and the vision tower's own modules, as
`load_backbone` opens them. Image features are put in place of the first tokens. Two forms: forward and backward alone, with logits and
cross-entropy for as many tokens as have a label; and a bare DeepSpeed loop (forward, backward, optimizer), whose loss is a sum.
"""

from dataclasses import dataclass

import deepspeed
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.batches.loader import RankStep
from pipeline.model.crem import load_backbone
from pipeline.train.engine import init_distributed, load_deepspeed_config
from tests.benchmarks.throughput.clock import Clock
from tests.benchmarks.throughput.task import Task


@dataclass(frozen=True)
class Packed:
    """A step's tokens without padding."""

    ids: Tensor
    """int64 [S, L]; S * L is the layout's number of tokens to within S / 2."""
    positions: Tensor
    """int64 [3, S, L]."""
    pixels: Tensor
    grids: Tensor
    answers: int
    """Tokens with a label."""


def packed(work: RankStep) -> Packed:
    """One trainer's step as the ceiling runs it."""
    chunks = list(work.chunks)
    sequences = sum(len(chunk.chorus_index) for chunk in chunks)
    length = round(work.tokens / sequences)
    real = torch.cat([chunk.ids[chunk.documents >= 0] for chunk in chunks])
    ids = torch.cat([real, real[:sequences]])[: sequences * length]  # rounding up may ask for a few more
    positions = torch.arange(length).expand(3, sequences, length)
    pixels, grids = torch.cat([chunk.pixels for chunk in chunks]), torch.cat([chunk.grids for chunk in chunks])
    return Packed(ids.view(sequences, length), positions, pixels, grids, work.answer_tokens)


class Bare(nn.Module):
    """The backbone from ids and pixels to final states."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: Packed) -> Tensor:
        """Final states [S * L, D]."""
        model = self.backbone.model
        embeds = model.get_input_embeddings()(batch.ids)
        features = torch.cat(model.get_image_features(batch.pixels, batch.grids, return_dict=True).pooler_output)
        embeds = torch.cat([features, embeds.flatten(0, 1)[len(features) :]]).view(embeds.shape)
        return model.language_model(inputs_embeds=embeds, position_ids=batch.positions, use_cache=False).last_hidden_state.flatten(0, 1)


def run(task: Task) -> dict[str, float]:
    """Forward and backward alone."""
    torch.set_num_threads(task.threads)
    model = Bare(load_backbone(task.checkpoint, torch.float32)).train()
    clock = None
    for batch in _batches(task, model):
        clock = clock or Clock(task)
        states = model(batch)
        logits = model.backbone.lm_head(states[-batch.answers :])
        loss = F.cross_entropy(logits.float(), batch.ids.flatten()[-batch.answers :]) + states.square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)
        clock.step(batch.ids.numel(), batch.ids.numel())
    return clock.result()


def run_deepspeed(task: Task, stage: int) -> dict[str, float]:
    """The bare loop at a ZeRO stage, on one rank."""
    init_distributed(timeout_minutes=5)
    torch.set_num_threads(task.threads)
    config = task.config()
    ds_config = load_deepspeed_config(config.deepspeed, config.optim.clip)
    ds_config["zero_optimization"] |= {"stage": stage}
    model = Bare(load_backbone(task.checkpoint, torch.float32)).train()
    batches = _batches(task, model)
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4), config=ds_config)
    clock = Clock(task)
    for batch in batches:
        engine.backward(engine(batch).sum())
        engine.step()
        clock.step(batch.ids.numel(), batch.ids.numel())
    return clock.result()


def _batches(task: Task, model: Bare) -> list[Packed]:
    """Every step's tokens, made before the clock runs."""
    loader = task.loader(model.backbone.model.get_rope_index)
    return [packed(loader.step(number)) for number in range(task.warmup + task.steps)]
