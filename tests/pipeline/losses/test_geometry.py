"""Alignment, uniformity and effective rank on points whose values are known, and on a whole collapse."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pipeline.losses.geometry import Geometry, alignment, effective_rank, measure, uniformity

AXES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def test_alignment_by_hand() -> None:
    assert float(alignment(AXES, AXES)) == 0.0
    assert float(alignment(AXES, -AXES)) == 4.0
    assert float(alignment(AXES, AXES[[0, 1, 3, 2]])) == 1.0  # two pairs at distance^2 2


def test_uniformity_by_hand() -> None:
    """Six pairs: four at distance^2 2, two at 4."""
    assert float(uniformity(AXES)) == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6), abs=1e-6)
    assert float(uniformity(AXES[:1].expand(5, 2))) == 0.0
    assert float(uniformity(AXES[[0, 2]])) == pytest.approx(-8.0)
    assert float(uniformity(AXES[:1])) == 0.0


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (AXES, 2.0),  # singular values sqrt(2), sqrt(2)
        (AXES[[0, 2]], 1.0),  # a line
        (AXES[:1].expand(5, 2), 1.0),  # a point
        (torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4))),
        (torch.cat([torch.eye(8), -torch.eye(8)]), 8.0),
        (torch.eye(8), 7.0),  # centring takes one direction
    ],
)
def test_effective_rank_by_hand(points: torch.Tensor, expected: float) -> None:
    assert float(effective_rank(points)) == pytest.approx(expected, rel=1e-5)


@given(st.integers(2, 20), st.integers(1, 12), st.integers(0, 99))
def test_effective_rank_bounds_scale_and_rotation(rows: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(rows, width, generator=generator, dtype=torch.double)
    rank = float(effective_rank(points))
    assert 1.0 - 1e-9 <= rank <= min(rows - 1, width) + 1e-9
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.double))[0]
    assert float(effective_rank(7.0 * points @ rotation + 3.0)) == pytest.approx(rank, rel=1e-6)


def test_measure() -> None:
    found = measure(AXES, AXES[[0, 1, 3, 2]])
    assert found == Geometry(1.0, pytest.approx(float(uniformity(AXES))), pytest.approx(2.0), 2)


def test_measure_looks_at_the_first_pairs_only() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, positives = (F.normalize(torch.randn(1100, 4, generator=generator), dim=1) for _ in range(2))
    changed = queries.clone()
    changed[1024:] = 0.5
    assert measure(changed, positives) == measure(queries, positives)
    changed[1023:] = 0.5
    assert measure(changed, positives) != measure(queries, positives)


@pytest.mark.parametrize(("directions", "collapsed"), [(1, True), (3, True), (6, False), (17, False)])
def test_collapsed(directions: int, collapsed: bool) -> None:
    """Embeddings in 18 dimensions that vary along a few directions only, evenly."""
    angles = torch.randn(64, directions, generator=torch.Generator().manual_seed(0))
    points = F.normalize(F.pad(angles, (0, 18 - directions)) + 100 * torch.eye(18)[17], dim=1)
    assert measure(points[:32], points[32:]).collapsed is collapsed


def test_few_pairs_are_no_collapse() -> None:
    """One pair has one direction at most; that says nothing."""
    assert not measure(AXES[:1], AXES[1:2]).collapsed
    assert not Geometry(0.0, 0.0, 1.5, full_rank=15).collapsed
    assert Geometry(0.0, 0.0, 1.5, full_rank=16).collapsed
