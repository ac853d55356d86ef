"""The learning rate against literal values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import OptimSettings
from pipeline.train.schedule import learning_rate


def rates(steps: int, **optim) -> list[float]:
    settings = OptimSettings(**(dict(learning_rate=1.0, warmup_share=0.2) | optim))
    return [learning_rate(settings, step, steps) for step in range(steps)]


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        (dict(schedule="linear"), [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (dict(schedule="constant"), [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (dict(schedule="cosine"), [0.5, 1, 1, 0.9619398, 0.8535534, 0.6913417, 0.5, 0.3086583, 0.1464466, 0.0380602]),
        (dict(schedule="linear", final_share=0.2), [0.5, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]),
        (dict(schedule="linear", learning_rate=8e-5), [4e-5, 8e-5, 8e-5, 7e-5, 6e-5, 5e-5, 4e-5, 3e-5, 2e-5, 1e-5]),
        (dict(schedule="linear", warmup_share=0.0), [1, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]),
        (dict(schedule="constant", warmup_share=0.5), [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1]),
    ],
    ids=str,
)
def test_ten_steps(optim: dict, expected: list[float]) -> None:
    assert rates(10, **optim) == pytest.approx(expected, rel=1e-6)


@given(
    st.integers(1, 300),
    st.floats(0, 0.99),
    st.sampled_from(["cosine", "linear", "constant"]),
    st.floats(0, 1),
)
def test_rises_to_the_peak_then_never_rises(steps: int, warmup: float, schedule: str, final: float) -> None:
    values = rates(steps, warmup_share=warmup, schedule=schedule, final_share=final)
    peak = max(values)
    assert 0 < min(values) <= peak <= 1 + 1e-12
    top = values.index(peak)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert all(a >= b - 1e-12 for a, b in zip(values[top:], values[top + 1 :], strict=False))
    assert min(values[top:]) >= final - 1e-12 or peak < 1
