"""One optimizer step of the joint objective, exact for any number of ranks and chunks.

    embed       every chunk, forward; without gradient if there are several chunks (gradient caching, Gao et al. 2021)
    contrast    gather all ranks' embeddings; loss of the local rows against all candidates; its gradient with respect to the
                embeddings, summed over ranks
    replay      chunk by chunk: forward with gradient (the one above, if there was only one chunk), then backward through
                <embeddings, their gradient> + the chunk's share of the answer loss
    update      once

Where a chunk runs twice, dropout must drop the same units twice, or the cached gradient belongs to other embeddings than those replayed.
So torch's generators are seeded before every forward, from (run seed, step, rank, chunk): a pure function, hence also the same after a
resume. Gradient checkpointing keeps each layer's generator state and restores it for its own recomputation (preserve_rng_state).

The contrastive batch is always the whole step, so 1 rank x 2 chunks equals 2 ranks x 1 chunk (but for dropout, whose masks belong to rank
and chunk). A step whose loss is not finite is refused before any backward pass, so neither weights nor optimizer state ever see it.

Shapes: S local slots, G pairs of all ranks, C candidates of all ranks, D hidden.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline import comm
from pipeline.batches.batch import PackedBatch
from pipeline.batches.loader import RankStep
from pipeline.batches.plan import hash64
from pipeline.config import LossSettings
from pipeline.losses.contrastive import ContrastiveInputs, info_nce
from pipeline.losses.joint import Weights, generation_scale, joint_loss, retrieval_scale


class Trainable(Protocol):
    """What a step asks of an engine: `engine.Engine`, or a plain PyTorch model in the equality tests."""

    def forward(self, batch: PackedBatch) -> tuple[Tensor, Tensor]: ...
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


def train_step(
    engine: Trainable, work: RankStep, blank: PackedBatch, loss: LossSettings, learning_rate: float, device, key: tuple[int, int]
) -> StepResult:
    """Run one step (collective).

    Args:
        blank: what a rank runs while others have more chunks.
        key: (run seed, step number), which dropout masks depend on.
    """

    def forward(number: int, chunk: PackedBatch) -> tuple[Tensor, Tensor]:
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
    embeddings_SD = _by_slot(slots, [embeddings for embeddings, _ in outputs], work.slots)
    answer_sum = sum(answer_loss_N.detach().sum() for _, answer_loss_N in outputs)

    # contrast
    retrieval_sum, correct, grad_SD = contrast(embeddings_SD, work, loss)
    counts = torch.tensor([work.pairs, work.answer_tokens], device=device)
    totals = torch.cat([torch.stack([retrieval_sum.double(), answer_sum.double(), correct.double()]), counts.double()])
    retrieval_total, answer_total, correct_total, pairs, answers = comm.sum_(totals).tolist()
    weights = Weights(loss.retrieval_weight, loss.generation_weight, int(pairs), int(answers))
    total = joint_loss(retrieval_total, answer_total, weights)
    means = (total, retrieval_total / max(pairs, 1), answer_total / max(answers, 1), correct_total / max(pairs, 1))
    if not torch.isfinite(torch.tensor(total)):
        return StepResult(*means, grad_norm=0.0, applied=False, chunks=count)

    # replay
    for i, chunk in enumerate(_padded(work.chunks, blank, count)):
        chunk_SD, answer_loss_N = outputs[0] if single else forward(i, chunk)
        surrogate = retrieval_scale(weights) * _inner_product(chunk_SD, grad_SD, chunk)
        surrogate = surrogate + generation_scale(weights) * answer_loss_N.sum()
        engine.backward(surrogate, last=i == count - 1)

    # update
    grad_norm, applied = engine.step(learning_rate)
    return StepResult(*means, grad_norm=grad_norm, applied=applied, chunks=count)


def forward_seed(seed: int, step: int, rank: int, chunk: int) -> int:
    """Seed of torch's generators for one forward pass: the same whenever and wherever that pass is run."""
    return hash64("forward", seed, step, rank, chunk)


def contrast(embeddings_SD: Tensor, work: RankStep, loss: LossSettings) -> tuple[Tensor, Tensor, Tensor]:
    """InfoNCE sum of the local rows, their correct count, and the gradient of the *global* sum with respect to the local embeddings.

    Gathering is without gradient; instead each rank differentiates its own rows' loss with respect to everything gathered, the results
    are added over ranks, and each rank takes its own part. That is the exact gradient, at the memory of B x C scores.
    """
    everything, sizes = comm.gather_rows(embeddings_SD)
    keys, _ = comm.gather_rows(work.keys.to(embeddings_SD.device))
    everything.requires_grad_()
    start = sum(sizes[: comm.rank()])
    with torch.enable_grad():
        result = info_nce(_inputs(everything, keys, sizes, work.pairs), loss.temperature, loss.symmetric)
        (grad,) = torch.autograd.grad(result.loss_sum, everything)
    comm.sum_(grad)
    return result.loss_sum.detach(), result.correct, grad[start : start + len(embeddings_SD)]


def _inputs(everything_ED: Tensor, keys_E: Tensor, sizes: list[int], pairs: int) -> ContrastiveInputs:
    """Sort gathered slots into queries, positives and hard negatives; every rank has the same number of pairs."""
    places = [torch.arange(size) + sum(sizes[:r]) for r, size in enumerate(sizes)]
    queries_G = torch.cat([place[:pairs] for place in places])
    candidates_C = torch.cat([place[pairs : 2 * pairs] for place in places] + [place[2 * pairs :] for place in places])
    return ContrastiveInputs(
        queries_GD=everything_ED[queries_G],
        candidates_CD=everything_ED[candidates_C],
        query_keys_G=keys_E[queries_G],
        candidate_keys_C=keys_E[candidates_C],
        local_B=torch.arange(pairs, device=everything_ED.device) + comm.rank() * pairs,
    )


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
