"""What is said and recorded of how embeddings lie: at the steps that get a line, and a collapse once, in plain words."""

import json
from dataclasses import replace

import pytest

from pipeline.batches.loader import RankStep
from pipeline.config import EmaSettings, OptimSettings, RunConfig
from pipeline.losses.geometry import Geometry
from pipeline.track import Tracker, TrackSettings
from pipeline.train.held_out import HeldOutResult
from pipeline.train.progress import Progress, _average, _rates
from pipeline.train.step import StepResult

HEALTHY, COLLAPSED = Geometry(0.5, -1.5, 40.0, full_rank=71), Geometry(0.1, -0.2, 1.34, full_rank=71)


@pytest.fixture
def work(collator, encoder) -> RankStep:
    return RankStep(chunks=[collator([])], pairs=2, slots=4, keys=None, answer_tokens=0, rows=2, tokens=1, places=1, chorus=4)


def run(tmp_path, work: RankStep, shapes: list[Geometry | None], **loss) -> list[dict]:
    """Show steps to a progress that speaks at every second one; the journal's metrics."""
    config = RunConfig(steps=len(shapes), log_every=2, loss=loss)
    progress = Progress(config, Tracker.start(TrackSettings(enabled=False), "test", tmp_path, {}, {}))
    with progress:
        for number, shape in enumerate(shapes):
            result = StepResult(1.0, 2.0, 3.0, 0.5, 0.1, True, 1, temperature=0.03, left_out=1.5, geometry=shape)
            progress.step(number, work, result, 1e-3, 0.0)
    return [json.loads(line)["metrics"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_an_exhausted_source_is_named(tmp_path, work, capsys) -> None:
    """At its step, whether that step gets a line or not."""
    run(tmp_path, replace(work, exhausted=("mmeb_train/CIRR", "chats")), [None])
    said = capsys.readouterr().out
    for source in ("mmeb_train/CIRR", "chats"):
        assert f"step 1: source {source} is exhausted (data.epochs); the others share its turns from here on" in said
    run(tmp_path, work, [None])
    assert "exhausted" not in capsys.readouterr().out


def test_a_collapse_is_said_once(tmp_path, work, capsys) -> None:
    run(tmp_path, work, [None, HEALTHY, None, COLLAPSED, None, COLLAPSED])
    said = capsys.readouterr().out
    assert said.count("warning") == 1
    assert "warning: step 4: embeddings have collapsed: effective rank 1.3 of 71 (expected: 4.0 or more)" in said
    assert "cannot tell" in said and "--optim.learning-rate" in said and "--loss.temperature" in said


def test_healthy_embeddings_are_not_warned_of(tmp_path, work, capsys) -> None:
    run(tmp_path, work, [HEALTHY] * 4)
    assert "warning" not in capsys.readouterr().out


def test_an_average_of_weights_is_announced() -> None:
    assert _average(EmaSettings()) == ""
    said = "average of the weights: decay 0.999, from update {} on; exported beside them; held-out rows see the weights"
    assert _average(EmaSettings(decay=0.999)) == "\n  " + said.format(1)
    assert _average(EmaSettings(decay=0.999, update_after_step=50)) == "\n  " + said.format(50)


def test_metrics(tmp_path, work) -> None:
    first, second = run(tmp_path, work, [None, HEALTHY])
    assert "geometry/alignment" not in first
    assert {name: value for name, value in second.items() if name.startswith("geometry/")} == {
        "geometry/alignment": 0.5,
        "geometry/uniformity": -1.5,
        "geometry/effective_rank": 40.0,
    }
    assert first["temperature"] == second["temperature"] == 0.03
    assert "loss/left_out" not in first


def test_the_margins_work_is_recorded_where_there_is_one(tmp_path, work) -> None:
    assert run(tmp_path, work, [None], margin=0.1)[0]["loss/left_out"] == 1.5


def test_signs_of_ill_health_are_recorded(tmp_path, work) -> None:
    first, second = run(tmp_path, work, [None, COLLAPSED])
    assert first["health/loss_spike"] == 0.0 and "speed/slowest_rank" not in first
    assert second["health/collapsed"] == 1.0
    assert (second["speed/slowest_rank"], second["speed/slowest_share"], second["speed/data_wait_share_worst"]) == (0.0, 0.0, 0.0)


def test_a_spike_is_told(tmp_path, work, capsys) -> None:
    progress = Progress(RunConfig(steps=99), Tracker.start(TrackSettings(enabled=False), "test", tmp_path, {}, {}))
    with progress:
        for number, loss in enumerate([1.0] * 20 + [5.0]):
            progress.step(number, work, StepResult(loss, 2.0, 3.0, 0.5, 0.1, True, 1, temperature=0.03, left_out=0.0), 1e-3, 0.0)
    assert "warning: step 21: loss spike: 5.000, usual 1.000" in capsys.readouterr().out
    spikes = [json.loads(line)["metrics"]["health/loss_spike"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert spikes == [0.0] * 20 + [1.0]


def test_a_look_at_held_out_rows_is_recorded(tmp_path, capsys) -> None:
    progress = Progress(RunConfig(steps=99), Tracker.start(TrackSettings(enabled=False), "test", tmp_path, {}, {}))
    with progress:
        progress.evaluated(7, HeldOutResult(0.5, {"a": 0.25}, 1.5, None, 2.0))
    assert "step 7/99  held out: P@1 0.50, answer loss 1.500 native (2 s)" in capsys.readouterr().out
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (row["step"], row["metrics"]) == (
        7,
        {"held_out/p_at_1": 0.5, "held_out/answer_loss_native": 1.5, "held_out/p_at_1_of/a": 0.25, "held_out/seconds": 2.0},
    )


def test_due() -> None:
    progress = Progress(RunConfig(steps=7, log_every=3), None)
    assert [number for number in range(7) if progress.due(number)] == [2, 5, 6]


def test_the_rates_are_told() -> None:
    optim = OptimSettings(learning_rate=7e-4, rates={"embedding": 3.5e-3}, warmup_share=0.06, final_share=0.05, weight_decay=0.02)
    assert _rates(optim) == "0.0007, embedding 0.0035; 6% warm-up, then cosine to 5%; weight decay 0.02, clipped at 1"
