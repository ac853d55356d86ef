"""Looks at held-out rows: the numbers are those of one row at a time, on any ranks, and training does not notice."""

import pytest
import torch
from ranks import run_ranks

from data_prep.samples import DataError
from pipeline.batches.collate import Job
from pipeline.batches.loader import content_key
from pipeline.batches.plan import SourceRows
from pipeline.batches.reader import ShardReader
from pipeline.config import BatchSettings, EvaluateSettings, RunConfig
from pipeline.train.held_out import HeldOut, HeldOutResult, open_rows, spaced

CPU = torch.device("cpu")
SMALL = BatchSettings(pairs=4, conversations=2, sub_batch=2, row_tokens=64, chunk_tokens=128)


class Plain:
    """What `measure` asks of an engine."""

    def __init__(self, model):
        self.model = model
        self.modes: list[bool] = []

    def forward(self, batch):
        self.modes.append(self.model.training or torch.is_grad_enabled())
        return self.model(batch)


@pytest.fixture(scope="module")
def look(shards, collator, model):
    def look(**evaluate) -> tuple[HeldOutResult, HeldOut, Plain]:
        config = RunConfig(batch=SMALL, evaluate=EvaluateSettings(shards=shards, **evaluate))
        engine, held = Plain(model), HeldOut(ShardReader(shards), collator, config, 0, 1)
        try:
            return held.measure(engine, CPU), held, engine
        finally:
            model.eval()  # the session's

    return look


def test_spaced() -> None:
    sources = [SourceRows("a", 0, 6), SourceRows("b", 10, 2)]
    assert spaced(sources, 4) == [0, 2, 4, 10]
    assert spaced(sources, 100) == [0, 1, 2, 3, 4, 5, 10, 11]
    assert spaced([], 3) == []


@torch.no_grad()
def test_same_as_one_row_at_a_time(look, shards, collator, model) -> None:
    found, _, engine = look()
    rows = [ShardReader(shards).row(number) for number in range(29)]
    pairs, compressed_or_not = rows[:22], {}
    queries, targets = (
        torch.cat([model(collator([[Job(s, slot=0)]]))[0] for s in side])
        for side in zip(*[(r.query, r.positive) for r in pairs], strict=True)
    )
    right = {"plain": 0, "asked": 0}
    for i, row in enumerate(pairs):
        same = [j for j, other in enumerate(pairs) if j != i and content_key(other.positive) == content_key(row.positive)]
        scores = targets @ queries[i]
        scores[same] = -2
        right[row.source] += int(scores.argmax() == i)
    assert found.by_source == {"asked": right["asked"] / 9, "plain": right["plain"] / 13}
    assert found.p_at_1 == sum(right.values()) / 22
    for z in (False, True):
        losses = torch.cat([model(collator([[Job(row.query, compressed=z)]]))[1] for row in rows])
        compressed_or_not[z] = float(losses.mean())
    assert found.native == pytest.approx(compressed_or_not[False], rel=1e-5)
    assert found.compressed == pytest.approx(compressed_or_not[True], rel=1e-5)
    assert abs(found.native - found.compressed) > 1e-3, "they are different questions"
    assert len(engine.modes) > 2 and not any(engine.modes), "never in training mode, never with gradient"


def test_fewer_rows(look) -> None:
    found, held, _ = look(rows=4)
    assert len(held._pairs) == 4 and len(held._others) == 4
    assert set(found.metrics()) == {
        *("held_out/p_at_1", "held_out/p_at_1_of/plain", "held_out/p_at_1_of/asked", "held_out/seconds"),
        *("held_out/answer_loss_native", "held_out/answer_loss_compressed"),
    }


def test_in_words() -> None:
    assert HeldOutResult(0.5, {}, 1.25, 2.5, 3.2).in_words() == "held out: P@1 0.50, answer loss 1.250 native, 2.500 compressed (3 s)"
    assert HeldOutResult(None, {}, 1.25, 2.5, 3.2).metrics().keys() == {
        "held_out/answer_loss_native",
        "held_out/answer_loss_compressed",
        "held_out/seconds",
    }


def test_training_data_are_refused(shards, encoder) -> None:
    config = RunConfig(evaluate=EvaluateSettings(shards=shards))
    reader = open_rows(config, encoder, "0" * 64)
    assert len(reader) == 29
    with pytest.raises(DataError, match=r"found the training data themselves.*data_prep split"):
        open_rows(config, encoder, reader.manifest.digest())
    assert open_rows(RunConfig(), encoder, "") is None


@pytest.fixture(scope="module")
def settings(shards, checkpoint, write_data, raw_samples, tmp_path_factory) -> dict:
    """Two steps with dropout in the adapters; a look after each at 7 pairs and a conversation, so that one rank has fewer chunks."""
    few = write_data(tmp_path_factory.mktemp("few") / "few", {"plain": raw_samples["plain"][:7], "chats": raw_samples["chats"][:1]})
    return {
        "steps": 2,
        "model": {"checkpoint": str(checkpoint), "train": "lora", "lora": {"dropout": 0.2}, "gradient_checkpointing": True},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 4, "conversations": 2, "sub_batch": 2, "row_tokens": 64, "chunk_tokens": 64},
        "optim": {"learning_rate": 1e-2, "warmup_share": 0.0},
        "evaluate": {"shards": str(few), "every": 1},
    }


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory) -> tuple[dict, dict]:
    """ZeRO-3 on two ranks, with and without looks."""
    scenarios = [{"stage": 3, "config": config} for config in (settings, settings | {"evaluate": {}})]
    return tuple(run_ranks(scenarios, 2, tmp_path_factory.mktemp("looks")))


def test_training_is_bit_for_bit_the_same(runs) -> None:
    looking, without = runs
    for name in ("loss", "grad_norm"):
        assert [r[name] for r in looking["results"]] == [r[name] for r in without["results"]]
    assert all(weight.equal(without["weights"][name]) for name, weight in looking["weights"].items())
    assert without["results"][0]["loss"] != without["results"][1]["loss"]
    assert "held_out" not in without["results"][0]


def test_all_ranks_find_the_same(runs) -> None:
    own, other = runs[0]["results"], runs[0]["others"][0]
    seen = ("native", "compressed", "p_at_1", "by_source")
    assert all(a["held_out"][name] == b["held_out"][name] for a, b in zip(own, other, strict=True) for name in seen)
    assert own[0]["held_out"]["by_source"] == {"plain": own[0]["held_out"]["p_at_1"]}
    assert own[0]["held_out"]["native"] != own[1]["held_out"]["native"], "it follows the weights"


@pytest.mark.slow
def test_other_stages_and_plain_pytorch_find_the_same(runs, settings, tmp_path) -> None:
    two = run_ranks([{"stage": stage, "config": settings} for stage in (1, 2)], 2, tmp_path)
    frozen = settings | {"optim": {"learning_rate": 1e-12}}
    still = [
        run_ranks([{"stage": 3, "config": frozen}], 2, tmp_path)[0]["results"][0]["held_out"],
        run_ranks([{"stage": None, "config": frozen}], 1, tmp_path)[0]["results"][0]["held_out"],
    ]
    for name in ("native", "compressed", "p_at_1"):
        for run in two:
            found = [result["held_out"][name] for result in run["results"]]
            assert found == pytest.approx([result["held_out"][name] for result in runs[0]["results"]], rel=1e-4)
        assert still[0][name] == pytest.approx(still[1][name], rel=1e-5)
