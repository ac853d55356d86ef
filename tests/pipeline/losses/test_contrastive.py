"""InfoNCE against values worked out by hand, and against a loop over candidates."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.losses.contrastive import ContrastiveInputs, info_nce, learnt_temperature, log_scale_gradient


def inputs(queries, candidates, query_keys, candidate_keys, local=None) -> ContrastiveInputs:
    """Inputs from nested lists or tensors."""
    local = range(len(query_keys)) if local is None else local
    tensors = [torch.as_tensor(x) for x in (queries, candidates, query_keys, candidate_keys)]
    return ContrastiveInputs(*tensors, torch.tensor(list(local)))


TWO = inputs([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [1, 2], [10, 20, 30])
"""Scores: query 0 has 1, 1, 0 (its positive ties with the other); query 1 has 0, 0, 1 (a hard negative wins)."""


def test_by_hand() -> None:
    out = info_nce(TWO, temperature=0.5)
    first = math.log(2 * math.e**2 + 1) - 2
    second = math.log(2 + math.e**2)
    assert float(out.loss_sum) == pytest.approx(first + second, abs=1e-6)
    assert int(out.correct) == 1


def test_by_hand_symmetric() -> None:
    out = info_nce(TWO, temperature=0.5, symmetric=True)
    forward = math.log(2 * math.e**2 + 1) - 2 + math.log(2 + math.e**2)
    # both targets equal query 0; hard negatives are not scored backwards
    backward = math.log(math.e**2 + 1) - 2 + math.log(math.e**2 + 1)
    assert float(out.loss_sum) == pytest.approx((forward + backward) / 2, abs=1e-6)


def test_a_lone_pair_costs_nothing() -> None:
    assert float(info_nce(inputs([[1.0, 0.0]], [[0.0, 1.0]], [1], [2]), 0.02, symmetric=True).loss_sum) == 0.0


@pytest.mark.parametrize(
    ("query_keys", "candidate_keys", "ignored"),
    [
        ([1, 2], [10, 20, 30], set()),
        ([1, 2], [10, 10, 30], {(0, 1), (1, 0)}),  # the same target
        ([1, 1], [10, 20, 30], {(0, 1), (1, 0)}),  # the target of the same query
        ([1, 2], [10, 20, 10], {(0, 2)}),  # a hard negative that is row 0's own target
        ([1, 1], [10, 20, 20], {(0, 1), (1, 0), (0, 2), (1, 2)}),  # a hard negative that is the same query's other target
    ],
)
def test_false_negatives(query_keys: list, candidate_keys: list, ignored: set) -> None:
    queries, candidates = [[1.0, 0.0], [0.6, 0.8]], [[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]]
    expected = 0.0
    for i in range(2):
        scores = [sum(a * b for a, b in zip(queries[i], candidate, strict=True)) for candidate in candidates]
        expected += math.log(sum(math.exp(s) for j, s in enumerate(scores) if (i, j) not in ignored)) - scores[i]
    assert float(info_nce(inputs(queries, candidates, query_keys, candidate_keys), 1.0).loss_sum) == pytest.approx(expected, abs=1e-6)


@st.composite
def batches(draw) -> ContrastiveInputs:
    """Random unit vectors; few distinct keys, so that most batches have false negatives."""
    pairs, negatives = draw(st.integers(1, 6)), draw(st.integers(0, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    vectors = F.normalize(torch.randn(2 * pairs + negatives, 4, generator=generator, dtype=torch.double), dim=1)
    keys = st.integers(-3, 3)
    query_keys = draw(st.lists(keys, min_size=pairs, max_size=pairs))
    candidate_keys = draw(st.lists(keys, min_size=pairs + negatives, max_size=pairs + negatives))
    return inputs(vectors[:pairs], vectors[pairs:], query_keys, candidate_keys)


def brute_force(
    batch: ContrastiveInputs, temperature: float, symmetric: bool, margin: float | None = None
) -> tuple[float, int, int]:
    """Candidate by candidate, with the set of known (query, target) pairs: loss, correct rows, candidates the margin left out."""
    queries, targets = batch.query_keys_G.tolist(), batch.candidate_keys_C.tolist()
    known = set(zip(queries, targets, strict=False))
    cosines = (batch.queries_GD @ batch.candidates_CD.T).tolist()
    loss, correct, left_out = 0.0, 0, 0

    def cost(own: float, others: list[float]) -> float:
        near = [] if margin is None else [c for c in others if c > own + margin]
        return math.log(sum(math.exp(c / temperature) for c in (own, *(c for c in others if c not in near)))) - own / temperature

    for i in batch.local_B.tolist():
        own = cosines[i][i]
        forward = [cosines[i][j] for j in range(len(targets)) if j != i and (queries[i], targets[j]) not in known]
        backward = [cosines[g][i] for g in range(len(queries)) if g != i and (queries[g], targets[i]) not in known]
        ways = [forward, backward] if symmetric else [forward]
        loss += sum(cost(own, way) for way in ways) / len(ways)
        correct += own >= max(forward, default=-1.0)
        left_out += sum(margin is not None and c > own + margin for c in forward)
    return loss, correct, left_out


margins = st.sampled_from([None, -2.0, -0.3, -0.05, 0.0, 0.1, 0.5, 2.0])


@given(batches(), st.sampled_from([0.1, 1.0]), st.booleans())
@settings(max_examples=200)
def test_equals_brute_force(batch: ContrastiveInputs, temperature: float, symmetric: bool) -> None:
    out = info_nce(batch, temperature, symmetric)
    loss, correct, _ = brute_force(batch, temperature, symmetric)
    assert float(out.loss_sum) == pytest.approx(loss, abs=1e-9)
    assert (int(out.correct), int(out.left_out)) == (correct, 0)


@given(batches(), st.sampled_from([0.1, 1.0]), st.booleans(), margins)
@settings(max_examples=250)
def test_margin_equals_brute_force(batch: ContrastiveInputs, temperature: float, symmetric: bool, margin: float | None) -> None:
    out = info_nce(batch, temperature, symmetric, margin)
    loss, correct, left_out = brute_force(batch, temperature, symmetric, margin)
    assert float(out.loss_sum) == pytest.approx(loss, abs=1e-9)
    assert (int(out.correct), int(out.left_out)) == (correct, left_out)


@given(batches(), st.integers(0, 6), st.booleans(), margins)
def test_parts_add_up(batch: ContrastiveInputs, cut: int, symmetric: bool, margin: float | None) -> None:
    whole = info_nce(batch, 0.1, symmetric, margin)
    parts = [info_nce(replace(batch, local_B=local), 0.1, symmetric, margin) for local in (batch.local_B[:cut], batch.local_B[cut:])]
    assert float(sum(part.loss_sum for part in parts)) == pytest.approx(float(whole.loss_sum), abs=1e-9)
    assert sum(int(part.correct) for part in parts) == int(whole.correct)
    assert sum(int(part.left_out) for part in parts) == int(whole.left_out)


@pytest.mark.parametrize(
    ("margin", "ignored", "left_out"),
    [
        (None, set(), 0),
        (0.3, set(), 0),
        (0.1, {(0, 2)}, 1),  # 1.0 against the positive's 0.8
        (0.0, {(0, 2)}, 1),
        (-0.25, {(0, 2), (1, 2)}, 2),  # 0.6 against 0.8; the positive itself stays
        (-2.0, {(0, 1), (0, 2), (1, 0), (1, 2)}, 4),
    ],
)
def test_margin_by_hand(margin: float | None, ignored: set, left_out: int) -> None:
    queries, candidates = [[1.0, 0.0], [0.6, 0.8]], [[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]]
    scores = [[0.8, 0.0, 1.0], [0.96, 0.8, 0.6]]
    if margin in (0.1, 0.0, -0.25):
        ignored, left_out = ignored | {(1, 0)}, left_out + 1  # 0.96 against 0.8
    out = info_nce(inputs(queries, candidates, [1, 2], [10, 20, 30]), 0.5, margin=margin)
    expected = sum(
        math.log(sum(math.exp(2 * s) for j, s in enumerate(row) if (i, j) not in ignored)) - 2 * row[i] for i, row in enumerate(scores)
    )
    assert float(out.loss_sum) == pytest.approx(expected, abs=1e-6)
    assert int(out.left_out) == left_out
    assert int(out.correct) == 0, "what is left out still counts as having scored higher"


def test_a_margin_that_leaves_nothing_costs_nothing() -> None:
    out = info_nce(TWO, 0.5, symmetric=True, margin=-2.0)
    assert float(out.loss_sum) == 0.0


@pytest.mark.parametrize("margin", [None, 0.1])
@pytest.mark.parametrize("symmetric", [False, True])
def test_gradient(symmetric: bool, margin: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, candidates = (torch.randn(n, 3, generator=generator, dtype=torch.double, requires_grad=True) for n in (4, 6))

    def loss(queries, candidates):
        return info_nce(inputs(queries, candidates, [1, 1, 2, 3], [5, 6, 7, 7, 8, 5], local=[1, 3]), 0.5, symmetric, margin).loss_sum

    assert torch.autograd.gradcheck(loss, (queries, candidates))


def test_false_negatives_get_no_gradient() -> None:
    queries, candidates = torch.eye(3).requires_grad_(), torch.full((3, 3), 0.5).requires_grad_()
    info_nce(inputs(queries, candidates, [1, 1, 2], [5, 6, 7], local=[0]), 1.0).loss_sum.backward()
    assert candidates.grad.abs().sum(1).gt(0).tolist() == [True, False, True]


@given(batches(), st.sampled_from([0.02, 0.1, 1.0]), st.booleans(), margins)
def test_log_scale_gradient_is_autograds(batch: ContrastiveInputs, temperature: float, symmetric: bool, margin: float | None) -> None:
    """Against a plain graph in which log(1 / temperature) is a leaf."""
    log_scale = torch.tensor(-math.log(temperature), dtype=torch.double, requires_grad=True)
    queries, candidates = batch.queries_GD.clone().requires_grad_(), batch.candidates_CD.clone().requires_grad_()
    leaves = replace(batch, queries_GD=queries, candidates_CD=candidates)
    loss = info_nce(leaves, torch.exp(-log_scale), symmetric, margin).loss_sum
    expected, grad_queries = torch.autograd.grad(loss, (log_scale, queries))
    found = log_scale_gradient(queries.detach(), grad_queries, temperature)
    assert float(found) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("temperature", "slope", "expected"), [(0.02, -3.0, -3.0), (0.01, -3.0, 0.0), (0.01, 3.0, 3.0), (0.02, 3.0, 3.0)])
def test_at_its_limit_the_temperature_may_only_rise(temperature: float, slope: float, expected: float) -> None:
    """Descent on log(1 / temperature): a negative gradient would lower the temperature."""
    assert float(log_scale_gradient(torch.tensor([[1.0, 0.0]]), torch.tensor([[slope, 7.0]]), temperature)) == expected


@pytest.mark.parametrize(
    ("start", "log_scale", "expected"), [(0.02, 0.0, 0.02), (0.02, math.log(2), 0.01), (0.02, 5.0, 0.01), (0.02, -math.log(2), 0.04)]
)
def test_learnt_temperature(start: float, log_scale: float, expected: float) -> None:
    assert learnt_temperature(start, log_scale) == pytest.approx(expected, abs=1e-15)
