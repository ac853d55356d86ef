"""Cross-entropy through a vocabulary matrix without ever holding logits of vocabulary size.

loss_n = logsumexp_v <h_n, w_v> - <h_n, w_label>. The vocabulary is walked in blocks. Forward keeps a running logsumexp; backward computes
each block's logits again, turns them into softmax - one-hot and folds them into both gradients at once: a block of the weight's gradient
is one matrix product over all tokens, written once, so blocks add no rounding to it; only the states' gradient is a sum over blocks,
in float32. Memory beside the gradients: a few [N, B] blocks (`BLOCK` numbers each) instead of several [N, V].

torch.nn.functional.linear_cross_entropy walks over blocks of *tokens* instead. It is not used, for three reasons: its per-token losses
have the input's type (bfloat16: three digits); it saves `weight.detach()`, an alias that keeps the whole gathered matrix alive between
forward and backward under ZeRO-3; on a CPU it is slow. Measured by `tests/benchmarks/answer_loss.py` for 1,024 tokens, vocabulary 151,936,
hidden 1,536, float32, on one busy core, peak growth and seconds: plain 1.75 GiB, 70 s; library 0.96 GiB, 258 s; this 0.94 GiB, 62 s, of
which the weight's gradient is 0.87 GiB in each. On a GPU: not yet measured.

Tokens that are never generated (chorus tokens are inputs, not words) can be left out of the softmax: training then normalises over
what decoding chooses from.

Shapes: N answer tokens, V vocabulary, D hidden, B rows of a vocabulary block, E tokens left out.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2**24
"""Logits held at a time: 64 MiB in float32. Small vocabularies fit whole."""


def answer_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, left_out_E: Tensor | None = None, block: int = BLOCK
) -> Tensor:
    """Cross-entropy in nats of every token: at least float32 [N], gradient to states and weight.

    Equal to `cross_entropy((hidden @ weight.T).float(), labels, reduction="none")`, with -inf in the columns `left_out_E` (int64 ids;
    none of them a label). The weight itself is what is saved for backward,
    so that ZeRO-3 may take it away in between and bring it back.
    """
    left_out_E = labels_N.new_zeros(0) if left_out_E is None else left_out_E
    return _AnswerCrossEntropy.apply(hidden_ND, weight_VD, labels_N, left_out_E, block)


class _AnswerCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, left_out_E: Tensor, block: int) -> Tensor:
        ctx.block = block
        total_N = label_N = None
        for start, part_BD in _blocks(hidden_ND, weight_VD, block):
            logits_NB = _logits(hidden_ND, part_BD, left_out_E - start)
            sum_N = logits_NB.logsumexp(dim=1)
            inside_N, column_N = _within(labels_N, start, len(part_BD))
            score_N = torch.where(inside_N, logits_NB.gather(1, column_N[:, None])[:, 0], 0.0)
            total_N = sum_N if total_N is None else torch.logaddexp(total_N, sum_N)
            label_N = score_N if label_N is None else label_N + score_N
        ctx.save_for_backward(hidden_ND, weight_VD, labels_N, left_out_E, total_N)
        return total_N - label_N

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_N: Tensor):
        hidden_ND, weight_VD, labels_N, left_out_E, total_N = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden_ND = torch.zeros_like(hidden_ND, dtype=total_N.dtype) if needs_hidden else None
        grad_weight_VD = torch.empty_like(weight_VD) if needs_weight else None
        for start, part_BD in _blocks(hidden_ND, weight_VD, ctx.block):
            slope_NB = _logits(hidden_ND, part_BD, left_out_E - start).sub_(total_N[:, None]).exp_()  # softmax
            inside_N, column_N = _within(labels_N, start, len(part_BD))
            slope_NB.scatter_add_(1, column_N[:, None], -inside_N[:, None].to(slope_NB.dtype))  # minus one-hot
            slope_NB = slope_NB.mul_(grad_N[:, None]).to(hidden_ND.dtype)
            if needs_hidden:
                grad_hidden_ND += slope_NB @ part_BD
            if needs_weight:
                torch.mm(slope_NB.T, hidden_ND, out=grad_weight_VD[start : start + len(part_BD)])
        return grad_hidden_ND.to(hidden_ND.dtype) if needs_hidden else None, grad_weight_VD, None, None, None


def _blocks(hidden_ND: Tensor, weight_VD: Tensor, block: int):
    """(first row, rows) of the vocabulary, `block` logits at a time."""
    rows = max(1, block // max(1, len(hidden_ND)))
    for start in range(0, len(weight_VD), rows):
        yield start, weight_VD[start : start + rows]


def _logits(hidden_ND: Tensor, part_BD: Tensor, left_out_E: Tensor) -> Tensor:
    """Scores in the product's own type, then float32 (float64 stays), as the plain way has them; -inf in columns left out."""
    logits_NB = (hidden_ND @ part_BD.T).to(torch.promote_types(hidden_ND.dtype, torch.float32))
    here_E = left_out_E[(left_out_E >= 0) & (left_out_E < len(part_BD))]
    return logits_NB.index_fill_(1, here_E, float("-inf"))


def _within(labels_N: Tensor, start: int, rows: int) -> tuple[Tensor, Tensor]:
    """Whether each label lies in the block, and its column there (0 where it does not)."""
    inside_N = (labels_N >= start) & (labels_N < start + rows)
    return inside_N, torch.where(inside_N, labels_N - start, 0)
