"""The answer loss in blocks is the plain one: values, gradients, and that no logits of vocabulary size exist."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.losses.answer import answer_cross_entropy


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The reference: all logits at once."""
    logits = hidden @ weight.T
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels, reduction="none")


def case(tokens: int, vocabulary: int, width: int, seed: int, dtype: torch.dtype = torch.float32):
    """States, weight, labels, and the weight of each token in what is differentiated."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, width, generator=generator).to(dtype) for n in (tokens, vocabulary))
    return hidden, weight, torch.randint(vocabulary, (tokens,), generator=generator), torch.rand(tokens, generator=generator)


def gradients(way, hidden, weight, labels, shares):
    """Losses, and gradients of their weighted sum."""
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    losses = way(hidden, weight, labels)
    return losses.detach(), *torch.autograd.grad((losses * shares).sum(), (hidden, weight))


@given(st.integers(0, 9), st.integers(1, 40), st.integers(1, 8), st.integers(0, 99), st.integers(1, 400))
def test_equals_the_plain_way(tokens: int, vocabulary: int, width: int, seed: int, block: int) -> None:
    values = case(tokens, vocabulary, width, seed)
    ours = gradients(lambda *a: answer_cross_entropy(*a, block=block), *values)
    reference = gradients(plain, *values)
    torch.testing.assert_close(ours[0], reference[0], rtol=1e-6, atol=2e-6)
    for own, expected in zip(ours[1:], reference[1:], strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 9), st.integers(2, 40), st.integers(0, 99), st.integers(1, 400), st.data())
def test_tokens_left_out_are_as_if_scored_minus_infinity(tokens: int, vocabulary: int, seed: int, block: int, data) -> None:
    """Losses and gradients; what is left out gets none."""
    values = case(tokens, vocabulary, 4, seed)
    words = sorted(set(range(vocabulary)) - set(values[2].tolist()))
    left_out = torch.tensor(data.draw(st.lists(st.sampled_from(words), unique=True)) if words else [], dtype=torch.long)

    def reference(hidden, weight, labels):
        return F.cross_entropy((hidden @ weight.T).index_fill(1, left_out, float("-inf")), labels, reduction="none")

    ours = gradients(lambda *a: answer_cross_entropy(*a, left_out, block), *values)
    for own, expected in zip(ours, gradients(reference, *values), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert not ours[2][left_out].any()


def test_by_hand() -> None:
    """Logits (0, log 3): shares 1/4, 3/4."""
    weight = torch.tensor([[0.0], [1.0986122886681098]])
    losses = answer_cross_entropy(torch.ones(2, 1), weight, torch.tensor([0, 1]), block=2)
    assert losses.tolist() == pytest.approx([1.3862943611, 0.2876820724], abs=1e-6)


@pytest.mark.parametrize("block", [1, 12, 10**6])
def test_gradcheck(block: int) -> None:
    hidden, weight, labels, _ = case(4, 7, 3, 0, torch.double)
    assert torch.autograd.gradcheck(
        lambda h, w: answer_cross_entropy(h, w, labels, block=block), (hidden.requires_grad_(), weight.requires_grad_())
    )


@pytest.mark.parametrize("block", [40, 10**6])
def test_bfloat16(block: int) -> None:
    """Float32 losses from bfloat16 states, as the plain way with its float32 softmax; gradients to the type's three digits."""
    values = case(16, 50, 32, 0, torch.bfloat16)
    ours = gradients(lambda *a: answer_cross_entropy(*a, block=block), *values)
    reference = gradients(plain, *values)
    assert ours[0].dtype == torch.float32 and ours[1].dtype == ours[2].dtype == torch.bfloat16
    torch.testing.assert_close(ours[0], reference[0], rtol=1e-6, atol=2e-6)
    for own, expected in zip(ours[1:], reference[1:], strict=True):
        torch.testing.assert_close(own.float(), expected.float(), rtol=2e-2, atol=2e-2)


def test_a_frozen_weight_gets_no_gradient() -> None:
    hidden, weight, labels, _ = case(4, 7, 3, 0)
    answer_cross_entropy(hidden.requires_grad_(), weight, labels).sum().backward()
    assert weight.grad is None and hidden.grad.abs().sum() > 0


class Largest(TorchDispatchMode):
    """Watches every tensor that any operation makes, backward included."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_nothing_of_vocabulary_size_is_made() -> None:
    """100 tokens, vocabulary 500, width 4: logits would have 50,000 numbers, the weight has 2,000."""
    values = case(100, 500, 4, 0)
    with Largest() as ours:
        gradients(lambda *a: answer_cross_entropy(*a, block=3000), *values)
    with Largest() as reference:
        gradients(plain, *values)
    assert ours.numel <= 3000 and reference.numel == 50_000
