"""What of a loaded backbone trains: everything, everything but the vision tower, or low-rank adapters and the chorus.

The chorus always trains. Where the embedding matrix does (full), its rows train with it. Where that is frozen (LoRA), they move into
`ChorusRows`, and `Crem` puts them in place of the matrix's own. Adapters are injected into the layers themselves, so the backbone keeps
its class and attribute paths, and every file that reads through it stays as it is.

Under ZeRO-3 the backbone's weights are partitioned already, while what is made here is ordinary until `deepspeed.initialize` partitions
it. Reading a weight's values therefore goes through `Gather`, which the engine supplies; this file knows no DeepSpeed.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.batches.plan import hash64
from pipeline.config import LoraSettings, ModelSettings
from pipeline.model.chorus_rows import ChorusRows
from pipeline.model.crem import Crem

ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Linear layers of a decoder layer: attention and gated MLP. lm_head and the vision tower are never adapted."""

Gather = Callable[[list[nn.Parameter]], AbstractContextManager]
"""A context in which the given parameters are whole on every rank (collective under ZeRO-3)."""


def whole_already(parameters: list[nn.Parameter]) -> AbstractContextManager:
    """`Gather` for weights that nothing has partitioned."""
    return nullcontext()


def make_trainable(
    backbone: PreTrainedModel, settings: ModelSettings, seed: int, gather: Gather = whole_already, learn_temperature: bool = False
) -> Crem:
    """Freeze what does not train, add what trains instead, and wrap the result (collective under ZeRO-3).

    Args:
        seed: selects the adapters' initial weights, the same on every rank. B starts at zero: step 0 is the checkpoint's own model.
    """
    if settings.train == "full":
        backbone.model.visual.requires_grad_(not settings.freeze_vision)
        return Crem(backbone, learn_temperature=learn_temperature)
    backbone.requires_grad_(False)
    _inject(backbone.model.language_model, settings.lora, seed)
    return Crem(backbone, _own_chorus(backbone, gather), learn_temperature)


def _inject(language_model: nn.Module, lora: LoraSettings, seed: int) -> None:
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=ADAPTED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash64("adapters", seed))
        inject_adapter_in_model(config, language_model)


def _own_chorus(backbone: PreTrainedModel, gather: Gather) -> ChorusRows:
    token_ids = backbone.config.chorus_token_ids
    weight_VD = backbone.get_input_embeddings().weight
    with gather([weight_VD]):
        return ChorusRows(token_ids, weight_VD.detach()[token_ids].clone())


def plain_weights(model: Crem, gather: Gather = whole_already) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of the backbone as the plain checkpoint names it, whole, one at a time (collective under ZeRO-3).

    Adapters are merged into their weights, the chorus rows stand in the embedding. The tensor is valid until the next one. Sums are taken
    in float32 and rounded once to the weight's type, so a bf16 model's merged weights differ from the adapted forward by that rounding.
    """
    adapted = {f"{name}.base_layer.weight": layer for name, layer in model.backbone.named_modules() if isinstance(layer, LoraLayer)}
    embedding = model.backbone.get_input_embeddings().weight
    for name, weight in model.backbone.named_parameters():
        if _is_adapter(name):
            continue
        plain = name.replace(".base_layer.", ".")
        if name in adapted:
            yield plain, _merged(adapted[name], gather)
        elif weight is embedding and model.chorus is not None:
            yield plain, _with_chorus(weight, model.chorus, gather)
        else:
            with gather([weight]):
                yield plain, weight.detach()


@torch.no_grad()
def _merged(layer: LoraLayer, gather: Gather) -> Tensor:
    """W + (alpha / rank) B A of one adapted layer."""
    weight, (a,), (b,) = layer.base_layer.weight, layer.lora_A.values(), layer.lora_B.values()
    (scale,) = layer.scaling.values()
    with gather([weight, a.weight, b.weight]):
        return (weight.float() + scale * (b.weight.float() @ a.weight.float())).to(weight.dtype)


@torch.no_grad()
def _with_chorus(weight_VD: nn.Parameter, chorus: ChorusRows, gather: Gather) -> Tensor:
    with gather([weight_VD, chorus.rows]):
        return weight_VD.index_copy(0, chorus.token_ids.to(weight_VD.device), chorus.rows.to(weight_VD.dtype))


def parameter_counts(model: Crem) -> dict[str, dict[str, int]]:
    """Numbers of parameters, {part: {"trained": ..., "total": ...}}, for vision, language, adapters and chorus.

    Chorus rows count under chorus, wherever they live, and not under language as well.
    """
    counts = {part: {"trained": 0, "total": 0} for part in ("vision", "language", "adapters", "chorus")}
    vision = {id(weight) for weight in model.backbone.model.visual.parameters()}
    for name, weight in model.backbone.named_parameters():
        part = "vision" if id(weight) in vision else "adapters" if _is_adapter(name) else "language"
        size = math.prod(_shape(weight))
        counts[part]["total"] += size
        counts[part]["trained"] += size * weight.requires_grad
    embedding = model.backbone.get_input_embeddings().weight
    rows = len(model.backbone.config.chorus_token_ids) * _shape(embedding)[1]
    counts["chorus"] = {"trained": rows, "total": rows}
    counts["language"]["total"] -= rows
    counts["language"]["trained"] -= rows * embedding.requires_grad
    return counts


def _shape(weight: nn.Parameter) -> torch.Size:
    """A parameter's own shape: partitioned by ZeRO-3 it is empty, and ds_shape keeps the real one."""
    return getattr(weight, "ds_shape", weight.shape)


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name
