"""The throughput benchmark compares like with like: the same pairs, the same losses, the same numbers of tokens."""

import pytest
import torch
from worker import PlainEngine

from pipeline.train.step import train_step
from tests.benchmarks.throughput.__main__ import table
from tests.benchmarks.throughput.cases import CEILING, PADDED, SENTENCE, names
from tests.benchmarks.throughput.ceiling import packed
from tests.benchmarks.throughput.padded import Padded
from tests.benchmarks.throughput.task import Task, write_task

BATCH = 6


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    """Pairs of the embedded data and the small checkpoint."""
    folder = str(tmp_path_factory.mktemp("throughput"))
    task = Task(folder, BATCH, 1, 0, max_pixels=256 * 784, threads=1, attention="two_causal", row_tokens=512, chunk_tokens=2**16)
    write_task(task, None, 40, "2M")
    return task


def test_the_padded_reference_computes_the_trainers_losses(task) -> None:
    (pairs,) = task.batches()
    assert len({pair.target for pair in pairs}) == len({pair.image for pair in pairs}) == BATCH  # no pair is left out as known
    assert {pair.compressed for pair in pairs} == {True, False}
    padded = Padded(task)
    engine = PlainEngine(task.config())
    answers = engine.model.answer_loss
    answers.never_ids = answers.never_ids[:0]  # the stock model's softmax is over the chorus tokens, too
    loader = task.loader(engine.model.backbone.model.get_rope_index)
    work = loader.step(0)
    batches = padded.collate(pairs)
    with torch.no_grad():
        joint, retrieval, generation = (float(loss) for loss in padded.loss(batches))
    ours = train_step(engine, work, loader.blank(), task.config().loss, 0.0, torch.device("cpu"), (0, 0))
    assert (joint, retrieval, generation) == pytest.approx((ours.loss, ours.retrieval_loss, ours.generation_loss), rel=1e-4)
    # the same tokens, but the reference runs every query a second time
    tokens = {name: int((batch["input_ids"] != padded.tokenizer.pad_token_id).sum()) for name, batch in batches.items()}
    assert tokens["answers"] + tokens["targets"] == work.tokens


def test_the_ceiling_has_the_trainers_tokens_patches_and_answers(task) -> None:
    work = task.loader(PlainEngine(task.config()).model.backbone.model.get_rope_index).step(0)
    batch = packed(work)
    assert len(batch.ids) == 2 * BATCH
    assert abs(batch.ids.numel() - work.tokens) <= BATCH
    assert len(batch.pixels) == len(work.chunks[0].pixels) and batch.answers == work.answer_tokens > 0


def test_ratios_are_taken_within_a_round() -> None:
    names_of = (PADDED, SENTENCE, "trainer, ZeRO-1", CEILING)
    run = {"padding": 0.0, "waited": 0.0, "cpu": 1.0, "others": 0.0}
    rates = [(10, 20, 30, 40), (20, 80, 50, 100), (5, 5, 20, 80)]  # a slow round does not meet a fast one
    rounds = [{name: run | {"pairs": rate, "tokens": 10 * rate} for name, rate in zip(names_of, rates_, strict=True)} for rates_ in rates]
    line = next(line for line in table(rounds) if line.startswith("trainer"))
    assert line.split()[-3:] == ["3.00x", "1.50x", "50.0%"]
    assert "*" not in line and "*" in table([{name: own | {"others": 0.5} for name, own in rounds[0].items()}])[1]


def test_a_round_has_every_case_once() -> None:
    assert names([1, 3], ranks=2, bf16=False) == [
        PADDED,
        SENTENCE,
        "trainer, ZeRO-1",
        "trainer, ZeRO-3",
        "trainer, ZeRO-1, 2 ranks",
        "trainer, ZeRO-3, 2 ranks",
        CEILING,
        "bare DeepSpeed loop, ZeRO-1",
        "bare DeepSpeed loop, ZeRO-3",
    ]
