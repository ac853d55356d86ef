"""Gradient caching is exact: any number of chunks gives the un-chunked gradient. One process, plain PyTorch.

(Ranks and ZeRO: `test_equivalence`.)
"""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batches.loader import RankStep, StepLoader
from pipeline.batches.reader import ShardReader
from pipeline.config import BatchSettings, DataSettings, LossSettings, RunConfig
from pipeline.losses.contrastive import ContrastiveInputs, info_nce
from pipeline.losses.geometry import measure
from pipeline.model.heads import LearntTemperature
from pipeline.train import step as step_module
from pipeline.train.step import train_step

CPU = torch.device("cpu")
KEY = (0, 0)
"""Seed and step."""


class Plain:
    """A `Trainable` of a model and an optimizer, nothing else."""

    def __init__(self, model, loss: LossSettings = LossSettings()):
        self.model = copy.deepcopy(model)
        self.model.temperature = LearntTemperature(torch.float32) if loss.learn_temperature else None
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.last: list[bool] = []
        self.gradient = None

    def forward(self, batch):
        return self.model(batch)

    def backward(self, loss, last):
        self.last.append(last)
        loss.backward()

    def step(self, learning_rate):
        self.gradient = self.flat_gradient()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(self.gradient.norm()), True

    def flat_gradient(self):
        return torch.cat([parameter.grad.flatten().double() for parameter in self.model.parameters()])


class LosesAChunk(Plain):
    """The negative control: one chunk's backward is missing."""

    def backward(self, loss, last):
        if self.last:
            super().backward(loss, last)
        else:
            self.last.append(last)
            (loss * 0).backward()


@pytest.fixture(scope="module")
def load(shards, collator):
    """Makes the work of a step; keyword arguments beside `BatchSettings`' are weights and seed."""
    reader = ShardReader(shards)

    def load(number: int = 0, seed: int = 0, weights: dict | None = None, chunk_tokens: int = 1 << 20, **batch) -> RankStep:
        settings = BatchSettings(**(dict(pairs=4, conversations=2, sub_batch=2, row_tokens=64) | batch), chunk_tokens=chunk_tokens)
        config = RunConfig(batch=settings, seed=seed, data=DataSettings(weights=weights or {}))
        return StepLoader(reader, collator, config, 0, 1).step(number)

    return load


def run(model, work, blank, loss=LossSettings(temperature=0.1), kind=Plain):
    """One step on a copy of the model."""
    engine = kind(model, loss)
    return train_step(engine, work, blank, loss, 1e-3, CPU, KEY), engine


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to the whole gradient; a lone pair's is zero but for rounding."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-3))


def straight(model, work: RankStep, loss: LossSettings) -> torch.Tensor:
    """The gradient of the objective as it is written down, in one graph, with nothing cached."""
    [chunk] = work.chunks
    own = copy.deepcopy(model)
    own.temperature = LearntTemperature(torch.float32) if loss.learn_temperature else None
    embeddings, answers, *log_scale = own(chunk)
    needed = chunk.embedding_slots >= 0
    by_slot = torch.zeros(work.slots, embeddings.shape[1]).index_put((chunk.embedding_slots[needed],), embeddings[needed])
    pairs = work.pairs
    inputs = ContrastiveInputs(by_slot[:pairs], by_slot[pairs:], work.keys[:pairs], work.keys[pairs:], torch.arange(pairs))
    temperature = loss.temperature * torch.exp(-log_scale[0]) if log_scale else loss.temperature
    retrieval = info_nce(inputs, temperature, loss.symmetric, loss.margin).loss_sum / pairs
    generation = answers.sum() / max(1, work.answer_tokens)
    (loss.retrieval_weight * retrieval + loss.generation_weight * generation).backward()
    return torch.cat([parameter.grad.flatten().double() for parameter in own.parameters()])


@st.composite
def configurations(draw) -> dict:
    """Mixes of sources (images, text, negatives, conversations), sizes and losses."""
    sub_batch = draw(st.sampled_from([1, 2, 3]))
    weights = draw(st.sampled_from([{}, {"plain": 0.0}, {"asked": 0.0}, {"plain": 1.0, "asked": 5.0}]))
    return dict(
        number=draw(st.integers(0, 99)),
        seed=draw(st.integers(0, 9)),
        weights=weights,
        sub_batch=sub_batch,
        pairs=sub_batch * draw(st.integers(1, 3)),
        conversations=draw(st.integers(0, 3)),
        row_tokens=draw(st.sampled_from([1, 64, 128])),
    )


losses = st.builds(
    LossSettings,
    retrieval_weight=st.sampled_from([0.0, 1.0, 2.0]),
    generation_weight=st.sampled_from([0.5, 1.0]),
    temperature=st.sampled_from([0.05, 0.5]),
    symmetric=st.booleans(),
    learn_temperature=st.booleans(),
    margin=st.sampled_from([None, 0.05]),
)


@given(configurations(), losses, st.sampled_from([1, 64, 200, 400]))
@settings(max_examples=40)
def test_any_chunks_give_the_same_gradient(model, load, collator, configuration: dict, loss: LossSettings, chunk_tokens: int) -> None:
    blank = collator([])
    whole = load(**configuration)
    expected = straight(model, whole, loss)
    result, engine = run(model, whole, blank, loss)
    assert result.chunks == 1
    assert error(engine.gradient, expected) <= 1e-5
    chunked = load(**configuration, chunk_tokens=max(chunk_tokens, configuration["row_tokens"]))
    again, caching = run(model, chunked, blank, loss)
    assert error(caching.gradient, expected) <= 1e-5
    assert caching.last == [False] * (again.chunks - 1) + [True]
    for name in ("loss", "retrieval_loss", "generation_loss", "accuracy"):
        assert getattr(again, name) == pytest.approx(getattr(result, name), rel=1e-5, abs=1e-6)
    assert again.grad_norm == pytest.approx(float(expected.norm()), rel=1e-4)


def test_chunk_by_chunk_and_blanks(model, load, collator) -> None:
    """1, 2, 3, ... chunks, and blank ones after them as ranks with less work run them."""
    blank, loss = collator([]), LossSettings(temperature=0.1)
    expected = straight(model, load(), loss)
    seen = set()
    for chunk_tokens in (64, 128, 192, 256, 384, 512):
        work = load(chunk_tokens=chunk_tokens)
        for padded in (work, replace(work, chunks=[*work.chunks, blank]), replace(work, chunks=[*work.chunks, blank, blank])):
            result, engine = run(model, padded, blank, loss)
            assert error(engine.gradient, expected) <= 1e-5
            seen.add(result.chunks)
    assert {1, 2, 3, 4} <= seen


def test_every_kind_of_sequence_occurs(load) -> None:
    """The control of the data: images, none, negatives and conversations are all in it."""
    work = load(pairs=12, sub_batch=4, conversations=3)
    [chunk] = work.chunks
    assert work.slots > 2 * work.pairs
    assert work.rows == 15
    assert len(chunk.grids) > 5
    assert set(chunk.compressed[chunk.documents >= 0].tolist()) == {True, False}


def test_the_loss_is_the_papers(model, load, collator) -> None:
    result, _ = run(model, load(), collator([]), LossSettings(retrieval_weight=1.0, generation_weight=0.5))
    assert result.loss == pytest.approx(result.retrieval_loss + 0.5 * result.generation_loss)
    assert result.applied


@pytest.mark.parametrize("chunk_tokens", [64, 1 << 20])
@pytest.mark.parametrize("weight", ["retrieval_weight", "generation_weight"])
def test_a_weight_of_zero_switches_its_part_off(model, load, collator, weight: str, chunk_tokens: int) -> None:
    loss = LossSettings(**{weight: 0.0})
    result, engine = run(model, load(chunk_tokens=chunk_tokens), collator([]), loss)
    other = result.generation_loss * 0.5 if weight == "retrieval_weight" else result.retrieval_loss
    assert result.loss == pytest.approx(other)
    assert engine.gradient.isfinite().all()


@pytest.mark.parametrize("chunk_tokens", [64, 1 << 20])
def test_a_learnt_temperature_gets_the_gradient_of_one_graph(model, load, collator, chunk_tokens: int) -> None:
    """Its own, not lost in the norm of all others: the last parameter's."""
    blank, loss = collator([]), LossSettings(temperature=0.1, learn_temperature=True, symmetric=True)
    expected = straight(model, load(), loss)[-1]
    work = load(chunk_tokens=chunk_tokens)
    for padded in (work, replace(work, chunks=[blank, *work.chunks, blank])):  # once, whichever chunk comes first
        result, engine = run(model, padded, blank, loss)
        assert float(engine.gradient[-1]) == pytest.approx(float(expected), rel=1e-5)
        assert result.temperature == 0.1
    assert abs(float(expected)) > 1e-3


def test_a_fixed_temperature_is_no_parameter(model, load, collator) -> None:
    fixed, learnt = (run(model, load(), collator([]), LossSettings(temperature=0.1, learn_temperature=on))[1] for on in (False, True))
    assert len(learnt.gradient) == len(fixed.gradient) + 1
    assert torch.equal(learnt.gradient[:-1], fixed.gradient)  # at its start, the learnt one changes nothing else


def test_the_geometry_is_measured_where_asked_for(model, load, collator) -> None:
    work, blank, loss = load(), collator([]), LossSettings(temperature=0.1)
    assert run(model, work, blank, loss)[0].geometry is None
    found = train_step(Plain(model), work, blank, loss, 1e-3, CPU, KEY, look=True).geometry
    embeddings, _ = model(work.chunks[0])
    by_slot = embeddings.detach()[work.chunks[0].embedding_slots.argsort()][-work.slots :]
    expected = measure(by_slot[: work.pairs], by_slot[work.pairs : 2 * work.pairs])
    assert vars(found) == pytest.approx(vars(expected), rel=1e-4)
    assert found.full_rank == 2 * work.pairs - 1


@pytest.mark.parametrize("scale", ["retrieval_scale", "generation_scale"])
def test_a_lost_scale_would_be_noticed(model, load, collator, monkeypatch, scale: str) -> None:
    blank, loss = collator([]), LossSettings(temperature=0.1)
    expected = straight(model, load(), loss)
    monkeypatch.setattr(step_module, scale, lambda weights: 1.0)
    assert error(run(model, load(chunk_tokens=64), blank, loss)[1].gradient, expected) > 0.01


def test_a_lost_chunk_would_be_noticed(model, load, collator) -> None:
    blank, loss = collator([]), LossSettings(temperature=0.1)
    expected = straight(model, load(), loss)
    assert error(run(model, load(chunk_tokens=64), blank, loss, LosesAChunk)[1].gradient, expected) > 0.01


@pytest.mark.parametrize("chunk_tokens", [64, 1 << 20])
def test_a_step_without_finite_loss_is_refused(model, load, collator, chunk_tokens: int) -> None:
    """One image's pixels are NaN. Nothing is touched: weights, optimizer state, gradients; the next step is as if nothing had been."""
    blank, loss = collator([]), LossSettings(temperature=0.1)
    good = load(chunk_tokens=chunk_tokens)
    shown = next(i for i, chunk in enumerate(good.chunks) if chunk.image_tokens > 0)
    broken = replace(good.chunks[shown], pixels=good.chunks[shown].pixels * float("nan"))
    bad = replace(good, chunks=[broken if i == shown else chunk for i, chunk in enumerate(good.chunks)])
    engine = Plain(model)
    train_step(engine, good, blank, loss, 1e-3, CPU, KEY)
    before = copy.deepcopy((engine.model.state_dict(), engine.optimizer.state_dict()["state"]))
    engine.last.clear()
    result = train_step(engine, bad, blank, loss, 1e-3, CPU, KEY)
    assert not result.applied
    assert result.loss != result.loss
    assert engine.last == []
    assert all(parameter.grad is None for parameter in engine.model.parameters())
    after = (engine.model.state_dict(), engine.optimizer.state_dict()["state"])
    assert all(torch.equal(before[0][name], value) for name, value in after[0].items())
    assert all(torch.equal(before[1][i][name], value) for i, state in after[1].items() for name, value in state.items())
    assert train_step(engine, good, blank, loss, 1e-3, CPU, KEY).applied


@pytest.mark.parametrize("chunk_tokens", [64, 1 << 20])
def test_learns(model, load, collator, chunk_tokens: int) -> None:
    """The same step again and again: both losses fall, chunked or not."""
    engine, blank, work = Plain(model), collator([]), load(chunk_tokens=chunk_tokens)
    results = [train_step(engine, work, blank, LossSettings(temperature=0.1), 3e-3, CPU, KEY) for _ in range(12)]
    assert results[-1].retrieval_loss < 0.7 * results[0].retrieval_loss
    assert results[-1].generation_loss < 0.8 * results[0].generation_loss
