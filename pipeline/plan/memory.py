"""Bytes of one GPU, part by part. Numbers of parameters, tokens and ranks in, bytes out.

    states        weights, gradients, float32 masters, Adam's moments: ZeRO (Rajbhandari et al. 2020, table 1), gradients accumulated
                  in float32 as this pipeline sets it; per stage as DeepSpeed 0.19.8 lays them out (`states`)
    activations   what autograd saves of one chunk; with gradient checkpointing each block's input and one block whole (Chen et al. 2016)
    gathers       ZeRO-3: weights that are whole for a while
    buckets       gradients on their way
    contrast      gathered embeddings, their gradient, scores (gradient caching, Gao et al. 2021)
    logits        a few blocks of the answer loss (`losses.answer`), the gradient of its matrix
    reserve       an assumption: CUDA context, NCCL, kernels' workspaces, fragmentation

Notation: e bytes of a weight (bfloat16 2, float32 4), D width, H heads, G key-value heads, E head size, F feed-forward width.
"""

from dataclasses import dataclass

from pipeline.losses.answer import BLOCK
from pipeline.plan.sizes import Model, Stack
from pipeline.plan.work import Work
from pipeline.train.sharding import Sharding

GIB = 2**30
RESERVE = 4 * GIB
"""An assumption, not a measurement."""

MASTER, MOMENTS, ACCUMULATED, AVERAGE = 4, 8, 4, 4
"""Float32 bytes of a trained parameter: its master copy, Adam's two moments, its accumulated gradient, its moving average if asked for."""


@dataclass(frozen=True)
class Held:
    """Bytes of states on one GPU, and on the host for one GPU."""

    gpu: dict[str, int]
    host: dict[str, int]


def states(total: int, trained: int, sharding: Sharding, ranks: int, averaged: bool = False) -> Held:
    """What stays from step to step, per rank, at its most within a step.

    Stage 0: all on every rank; float32 weights are their own masters. Stage 1: masters and moments shared out over ranks; the
    gradient is whole on every rank until the last chunk: in float32 with bf16 (DeepSpeed's BF16_Optimizer keeps the chunk's bf16 one
    beside it). Stage 2: gradients shared out, chunk by chunk. Stage 3: weights as well; with hierarchical partitioning a second copy of
    the weights over the ranks of a node. Offloaded: the same on the host, with one more float32 gradient on its way. A moving average
    of the weights (`averaged`) lies where the moments lie.
    """
    e, zero = sharding.weight_bytes, sharding.zero_optimization
    share = {"masters": MASTER * trained // ranks, "moments": MOMENTS * trained // ranks, "gradients": ACCUMULATED * trained // ranks}
    if averaged:
        share["average"] = AVERAGE * trained // ranks
    if zero.stage == 0:
        average = {"average": AVERAGE * trained} if averaged else {}
        return Held({"weights": e * total, "moments": MOMENTS * trained, "gradients": ACCUMULATED * trained} | average, {})
    if zero.stage == 1:
        share["gradients"] = (ACCUMULATED + (2 if e == 2 else 0)) * trained
    weights = {"weights": e * total if zero.stage < 3 else e * total // ranks}
    if zero.zero_hpz_partition_size > 1:
        weights["weights, second copy"] = e * total // min(zero.zero_hpz_partition_size, ranks)
    gpu, host = {}, {}
    (host if zero.offload_param else gpu).update(weights)
    if zero.offload_optimizer:
        host.update(share | {"gradients": 2 * share["gradients"]})
    else:
        gpu.update(share)
    return Held(gpu, host)


def decoder_saved(stack: Stack, e: int, keys: int, head_norms: bool) -> int:
    """Bytes that autograd saves of one decoder layer for one token.

    RMS norms as transformers writes them: the input in float32, the normalised input, the output. Attention: queries, and keys and values
    repeated for all heads; output; log-sum-exp; under a dense mask the token's row of it in the weights' type, made anew by every layer.

    Args:
        keys: places of a row of the dense mask; 0: no mask.
        head_norms: queries and keys are normed (Qwen3).
    """
    norms = 2 * ((4 + 2 * e) * stack.width + 4)
    attention = 4 * e * stack.heads * stack.head_size + 4 * stack.heads + e * keys
    if head_norms:
        attention += (stack.heads + stack.kv_heads) * ((4 + e) * stack.head_size + 4)
    return norms + attention + stack.kept * e * stack.feed_forward


def vision_saved(stack: Stack, e: int, rms: bool) -> int:
    """The same of one vision block for one patch.

    Norms: input and output, layer norms also mean and deviation, RMS norms as above. Attention: the fused projection, rotated queries and
    keys, output and its copy for the projection.
    """
    norms = 2 * ((4 + 2 * e) * stack.width + 4) if rms else 2 * (2 * e * stack.width + 2 * e)
    attention = 7 * e * stack.heads * stack.head_size + 4 * stack.heads
    return norms + attention + stack.kept * e * stack.feed_forward


def activations(model: Model, work: Work, e: int, checkpointing: bool, mask: bool, trained_vision: bool) -> dict[str, int]:
    """Saved activations of one full chunk; where image tokens fill the work's share of it."""
    tokens = work.chunk_tokens
    patches = round(tokens * work.image_share) * model.patches
    language = decoder_saved(model.language, e, work.row_tokens if mask else 0, model.family == "qwen3_vl")
    vision = vision_saved(model.vision, e, model.family == "qwen2_5_vl")
    out = {}
    for name, per_token, stack, count in (("language", language, model.language, tokens), ("vision", vision, model.vision, patches)):
        if name == "vision" and not trained_vision:
            out[name] = 2 * per_token * count if count else 0  # nothing is saved; a block's own tensors come and go
        elif checkpointing:
            out[name] = (stack.layers * e * stack.width + per_token) * count
        else:
            out[name] = stack.layers * per_token * count
    return out


def gathers(model: Model, sharding: Sharding) -> int:
    """Weights that ZeRO-3 holds whole at a time, at most: what may be live, the largest matrix at least, and what is fetched ahead."""
    zero = sharding.zero_optimization
    if zero.stage < 3:
        return 0
    live = min(model.total, max(zero.stage3_max_live_parameters, model.largest))
    return sharding.weight_bytes * min(model.total, live + zero.stage3_prefetch_bucket_size)


def buckets(model: Model, sharding: Sharding, ranks: int) -> int:
    """Float32 gradients being reduced: one bucket at stage 3; at stages 1 and 2 in the weights' type, two with overlap. One rank: none."""
    zero = sharding.zero_optimization
    size = min(zero.reduce_bucket_size, model.trained)
    if zero.stage == 3:
        return 4 * zero.reduce_bucket_size  # allocated once, whatever the model needs of it
    if zero.stage == 0 or ranks == 1:
        return 0
    return 4 * size * (2 if zero.overlap_comm else 1)


def contrast(model: Model, work: Work, ranks: int) -> int:
    """Embeddings of all ranks in float32, gathered and rearranged, their gradient; five float32 matrices of local rows x candidates."""
    slots = work.embedded
    return 4 * (4 * slots * model.language.width + 5 * (work.pairs // ranks) * (slots - work.pairs))


def logits(model: Model, e: int, head_trains: bool) -> int:
    """Three float32 blocks of logits; where it trains, the gradient of the output matrix."""
    return 3 * 4 * BLOCK + (e * model.vocabulary * model.language.width if head_trains else 0)


def of_one_gpu(model: Model, work: Work, sharding: Sharding, ranks: int, checkpointing: bool, mask: bool, averaged: bool = False) -> Held:
    """Everything, by name; `gpu` adds up to what a GPU needs."""
    e = sharding.weight_bytes
    held = states(model.total, model.trained, sharding, ranks, averaged)
    parts = activations(model, work, e, checkpointing, mask, model.parts["vision"]["trained"] > 0)
    moving = {
        "activations, language": parts["language"],
        "activations, vision": parts["vision"],
        "ZeRO-3 gathers": gathers(model, sharding),
        "reduce buckets": buckets(model, sharding, ranks),
        "contrastive matrix": contrast(model, work, ranks),
        "answer logits": logits(model, e, model.parts["language"]["trained"] > 0),
        "reserve (assumed)": RESERVE,
    }
    return Held(held.gpu | {name: size for name, size in moving.items() if size}, held.host)
