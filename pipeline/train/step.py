"""One optimizer step of the joint objective, exact for any number of ranks and chunks.

    embed       every chunk, forward; without gradient if there are several chunks (gradient caching, Gao et al. 2021)
    contrast    gather all ranks' embeddings; loss of the local rows against all candidates; its gradient with respect to the
                embeddings, summed over ranks
    replay      chunk by chunk: forward with gradient (the one above, if there was only one chunk), then backward through
                <embeddings, their gradient> + the chunk's share of the answer loss (+, once, log-scale x its gradient, where the
                temperature is learnt)
    update      once

Where a chunk runs twice, dropout must drop the same units twice, or the cached gradient belongs to other embeddings than those replayed.
So torch's generators are seeded before every forward, from (run seed, step, rank, chunk): a pure function, hence also the same after a
resume. Gradient checkpointing keeps each layer's generator state and restores it for its own recomputation (preserve_rng_state).

The contrastive batch is always the whole step, so 1 rank x 2 chunks equals 2 ranks x 1 chunk (but for dropout, whose masks belong to rank
and chunk). A step whose loss is not finite is refused before any backward pass, so neither weights nor optimizer state ever see it.

Shapes: S local slots, G pairs of all ranks, C candidates of all ranks, D hidden.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from pipeline import comm
from pipeline.batches.batch import PackedBatch
from pipeline.batches.loader import RankStep
from pipeline.batches.plan import hash64
from pipeline.config import LossSettings
from pipeline.losses.contrastive import ContrastiveInputs, ContrastiveOutput, info_nce, learnt_temperature, log_scale_gradient
from pipeline.losses.geometry import Geometry, measure
from pipeline.losses.joint import Weights, generation_scale, joint_loss, retrieval_scale


class Trainable(Protocol):
    """What a step asks of an engine: `engine.Engine`, or a plain PyTorch model in the equality tests."""

    def forward(self, batch: PackedBatch) -> tuple[Tensor, ...]: ...
    def backward(self, loss: Tensor, last: bool) -> None: ...
    def step(self, learning_rate: float) -> tuple[float, bool]: ...


@dataclass(frozen=True)
class StepResult:
    """What happened, over all ranks. Losses are means in nats; `applied` is False where the step was refused."""

    loss: float
    retrieval_loss: float
    generation_loss: float
    accuracy: float
    """Share of pairs whose positive scores highest among the step's candidates."""
    grad_norm: float
    applied: bool
    chunks: int
    """Forward passes per rank (without replay)."""
    temperature: float
    """The InfoNCE temperature this step was computed with."""
    left_out: float
    """Negatives that the margin left out, per query."""
    geometry: Geometry | None = None
    """Of the step's embeddings, on ranks that asked for it; None where the step was refused."""


def train_step(
    engine: Trainable,
    work: RankStep,
    blank: PackedBatch,
    loss: LossSettings,
    learning_rate: float,
    device: torch.device,
    key: tuple[int, int],
    look: bool = False,
) -> StepResult:
    """Run one step (collective).

    Args:
        blank: what a rank runs while others have more chunks.
        key: (run seed, step number), which dropout masks depend on.
        look: measure the embeddings' geometry here.
    """

    def forward(number: int, chunk: PackedBatch) -> tuple[Tensor, ...]:
        torch.manual_seed(forward_seed(*key, comm.rank(), number))
        return engine.forward(chunk.to(device))

    count = comm.max_int(len(work.chunks))
    single = count == 1

    # embed
    outputs, slots = [], []
    with torch.set_grad_enabled(single):
        for i, chunk in enumerate(_padded(work.chunks, blank, count)):
            outputs.append(forward(i, chunk))
            slots.append(chunk.embedding_slots)
    embeddings_SD = _by_slot(slots, [embeddings for embeddings, *_ in outputs], work.slots)
    answer_sum = sum(answer_loss_N.detach().sum() for _, answer_loss_N, *_ in outputs)
    temperature = learnt_temperature(loss.temperature, float(outputs[0][2].detach())) if loss.learn_temperature else loss.temperature

    # contrast
    contrasted = contrast(embeddings_SD, work, temperature, loss)
    counts = torch.tensor([work.pairs, work.answer_tokens], device=device)
    sums = [contrasted.loss.loss_sum, answer_sum, contrasted.loss.correct, contrasted.loss.left_out]
    totals = torch.cat([torch.stack([value.double() for value in sums]), counts.double()])
    retrieval_total, answer_total, correct_total, left_out_total, pairs, answers = comm.sum_(totals).tolist()
    weights = Weights(loss.retrieval_weight, loss.generation_weight, int(pairs), int(answers))
    total = joint_loss(retrieval_total, answer_total, weights)
    result = StepResult(
        loss=total,
        retrieval_loss=retrieval_total / max(pairs, 1),
        generation_loss=answer_total / max(answers, 1),
        accuracy=correct_total / max(pairs, 1),
        grad_norm=0.0,
        applied=False,
        chunks=count,
        temperature=temperature,
        left_out=left_out_total / max(pairs, 1),
    )
    if not torch.isfinite(torch.tensor(total)):
        return result
    geometry = measure(contrasted.inputs.queries_GD, contrasted.inputs.positives) if look else None

    # replay
    for i, chunk in enumerate(_padded(work.chunks, blank, count)):
        chunk_SD, answer_loss_N, *log_scale = outputs[0] if single else forward(i, chunk)
        surrogate = retrieval_scale(weights) * _inner_product(chunk_SD, contrasted.grad_SD, chunk)
        surrogate = surrogate + generation_scale(weights) * answer_loss_N.sum()
        for scalar in log_scale:  # one or none; in every chunk's graph, as every parameter must be, though its gradient enters once
            surrogate = surrogate + retrieval_scale(weights) * scalar * (contrasted.grad_log_scale if i == 0 else 0.0)
        engine.backward(surrogate, last=i == count - 1)

    # update
    grad_norm, applied = engine.step(learning_rate)
    return replace(result, grad_norm=grad_norm, applied=applied, geometry=geometry)


def forward_seed(seed: int, step: int, rank: int, chunk: int) -> int:
    """Seed of torch's generators for one forward pass: the same whenever and wherever that pass is run."""
    return hash64("forward", seed, step, rank, chunk)


@dataclass(frozen=True)
class Contrast:
    """The contrastive part of a step, as one rank sees it."""

    loss: ContrastiveOutput
    """Of the local rows."""
    grad_SD: Tensor
    """Gradient of the *global* sum with respect to the local embeddings."""
    grad_log_scale: Tensor
    """This rank's share of the global sum's gradient with respect to log(1 / temperature): float32 []; shares add up over ranks."""
    inputs: ContrastiveInputs
    """What any rank embedded."""


def contrast(embeddings_SD: Tensor, work: RankStep, temperature: float, loss: LossSettings) -> Contrast:
    """InfoNCE of the local rows against all candidates, and its exact gradients.

    Gathering is without gradient; instead each rank differentiates its own rows' loss with respect to everything gathered, the results
    are added over ranks, and each rank takes its own part. That is the exact gradient, at the memory of B x C scores.
    """
    everything, sizes = comm.gather_rows(embeddings_SD)
    keys, _ = comm.gather_rows(work.keys.to(embeddings_SD.device))
    everything.requires_grad_()
    start = sum(sizes[: comm.rank()])
    queries_G, candidates_C = _places(sizes, work.pairs)
    with torch.enable_grad():
        inputs = ContrastiveInputs(
            queries_GD=everything[queries_G],
            candidates_CD=everything[candidates_C],
            query_keys_G=keys[queries_G],
            candidate_keys_C=keys[candidates_C],
            local_B=torch.arange(work.pairs, device=everything.device) + comm.rank() * work.pairs,
        )
        result = info_nce(inputs, temperature, loss.symmetric, loss.margin)
        (grad,) = torch.autograd.grad(result.loss_sum, everything)
    comm.sum_(grad)
    # every rank holds the same gradient of all queries, so they agree on this one without another collective
    grad_log_scale = log_scale_gradient(everything.detach()[queries_G], grad[queries_G], temperature).float() / comm.world_size()
    return Contrast(
        loss=replace(result, loss_sum=result.loss_sum.detach()),
        grad_SD=grad[start : start + len(embeddings_SD)],
        grad_log_scale=grad_log_scale,
        inputs=inputs,
    )


def _places(sizes: list[int], pairs: int) -> tuple[Tensor, Tensor]:
    """Where queries [G] and candidates [C] stand among gathered slots; every rank has the same number of pairs."""
    places = [torch.arange(size) + sum(sizes[:r]) for r, size in enumerate(sizes)]
    queries_G = torch.cat([place[:pairs] for place in places])
    candidates_C = torch.cat([place[pairs : 2 * pairs] for place in places] + [place[2 * pairs :] for place in places])
    return queries_G, candidates_C


def _padded(chunks: Sequence[PackedBatch], blank: PackedBatch, count: int) -> Iterator[PackedBatch]:
    """The chunks, one at a time, then blank ones up to `count`."""
    yield from chunks
    for _ in range(count - len(chunks)):
        yield blank


def _by_slot(places: list[Tensor], embeddings: list[Tensor], slots: int) -> Tensor:
    """Embeddings of all chunks in slot order, without gradient: [S, D]. `places` are the chunks' `embedding_slots`."""
    out_SD = embeddings[0].new_zeros((slots, embeddings[0].shape[1]))
    for places_S, chunk_SD in zip(places, embeddings, strict=True):
        needed = places_S >= 0
        out_SD[places_S[needed]] = chunk_SD.detach()[needed]
    return out_SD


def _inner_product(chunk_SD: Tensor, grad_SD: Tensor, chunk: PackedBatch) -> Tensor:
    """<embeddings, cached gradient> of one chunk: its derivative is the contrastive loss's own."""
    needed = chunk.embedding_slots >= 0
    return (chunk_SD[needed] * grad_SD[chunk.embedding_slots[needed]]).sum()
