"""Every family through the whole of training: two real ranks under ZeRO-3 against plain PyTorch, export, and the export's answers.

The ragged runs give one rank an image and the other none, as `test_ranks` does for the default family: what would hang (ZeRO-3) or
abort (ZeRO-2) if DeepStack's mergers stood outside a text-only rank's graph. (Qwen2.5-VL calls the modules that Qwen2-VL calls.)
"""

import pytest
import torch
from ranks import run_ranks
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
from worker import run

from data_prep.checkpoint import FAMILIES
from data_prep.encode import Encoder
from data_prep.samples import Side, Turn
from pipeline.batches.collate import Collator, Job
from pipeline.evaluate.embed import embed
from pipeline.evaluate.generate import Answerer
from pipeline.model.crem import Crem, load_backbone

STEPS = 2
RAGGED = {"qwen3_vl, ZeRO-3": ("qwen3_vl", 3), "qwen3_vl, ZeRO-2": ("qwen3_vl", 2)}


@pytest.fixture(scope="module")
def runs(checkpoint_of, kit_of, write_data, raw_samples, tmp_path_factory):
    """Results by run: "FAMILY" under ZeRO-3 on two ranks, "FAMILY, plain" in this process, the ragged ones; exports lie in "folder"."""
    folder = tmp_path_factory.mktemp("families")
    shards = {family: write_data(folder / f"{family}-shards", raw_samples, encoder=kit_of(family).encoder) for family in FAMILIES}
    whole = {family: _config(shards[family], checkpoint_of(family)) for family in FAMILIES}
    two = {family: {"stage": 3, "config": whole[family], "export": str(folder / family)} for family in FAMILIES}
    two |= {name: {"stage": stage, "config": _ragged(whole[family])} for name, (family, stage) in RAGGED.items()}
    out = {"folder": folder} | dict(zip(two, run_ranks(list(two.values()), 2, folder), strict=True))
    return out | {f"{family}, plain": run({"stage": None, "config": whole[family]}) for family in FAMILIES}


def _config(shards, checkpoint) -> dict:
    return {
        "steps": STEPS,
        "model": {"checkpoint": str(checkpoint)},
        "data": {"shards": str(shards)},
        "batch": {"pairs": 8, "conversations": 4, "sub_batch": 4, "row_tokens": 256, "chunk_tokens": 256},
        "loss": {"symmetric": True, "temperature": 0.05},
        "optim": {"learning_rate": 1e-3, "warmup_share": 0.0},
    }


def _ragged(config: dict) -> dict:
    """One pair per rank and step, without questions."""
    return config | {
        "steps": 4,
        "data": config["data"] | {"weights": {"plain": 1.0, "asked": 0.0}},
        "batch": {"pairs": 2, "conversations": 0, "sub_batch": 1, "row_tokens": 256, "chunk_tokens": 4096},
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_zero3_on_two_ranks_equals_plain_pytorch(runs, family: str) -> None:
    losses = []
    for ours, plain in zip(runs[family]["results"], runs[f"{family}, plain"]["results"], strict=True):
        for key in ("loss", "retrieval_loss", "generation_loss"):
            assert ours[key] == pytest.approx(plain[key], rel=1e-5), key
        assert ours["grad_norm"] == pytest.approx(plain["grad_norm"], rel=5e-5)
        assert ours["applied"] and ours["chunks"] >= 2
        losses.append(ours["loss"])
    assert len(losses) == STEPS and losses[0] != losses[1]


@pytest.mark.parametrize("name", RAGGED)
def test_a_rank_without_images_does_not_hang_the_other(runs, name: str) -> None:
    ours, other = runs[name]["results"], runs[name]["others"][0]
    patterns = {(a["own_image_tokens"] > 0, b["own_image_tokens"] > 0) for a, b in zip(ours, other, strict=True)}
    assert (True, False) in patterns or (False, True) in patterns  # otherwise this test would show nothing
    assert len(ours) == 4 and all(result["applied"] for result in ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_moves_every_part_of_the_model(runs, kit_of, family: str) -> None:
    start = dict(load_backbone(kit_of(family).checkpoint, torch.float32).named_parameters())
    still = [name for name, weight in runs[family]["weights"].items() if torch.equal(weight, start[name])]
    assert not still


@pytest.mark.parametrize("family", FAMILIES)
def test_the_export_gives_the_trained_models_outputs(runs, kit_of, picture, family: str) -> None:
    checkpoint, folder = kit_of(family).checkpoint, runs["folder"] / family
    start, trained, exported = (Crem(load_backbone(path, torch.float32)).eval() for path in (checkpoint, checkpoint, folder))
    assert trained.backbone.load_state_dict(runs[family]["weights"], strict=False).unexpected_keys == []
    sides = [Side("a red circle"), Side(images=(picture(1),)), Side("look", (picture(2), picture(3, 112, 56)))]
    ours, theirs, before = _outputs(trained, checkpoint, sides), _outputs(exported, folder, sides), _outputs(start, checkpoint, sides)
    for name in ("vectors", "losses"):
        torch.testing.assert_close(theirs[name], ours[name], atol=1e-6, rtol=1e-6)
        assert (theirs[name] - before[name]).abs().max() > 1e-3, "two steps of training show"
    assert theirs["answers"] == ours["answers"]
    assert [answer.cache_share < 1 for answer in theirs["answers"]] == [False] * 3 + [True] * 3


def _outputs(model: Crem, checkpoint, sides: list[Side]) -> dict:
    """Embeddings, losses of an answer seen natively and from the chorus, and decoded answers."""
    encoder = Encoder(checkpoint)
    collator = Collator(encoder.images, model.backbone.model.get_rope_index, encoder.image_id, encoder.tokenizer.pad_token_id)
    turn = Turn("what colour?", "a red circle and two squares.")
    jobs = [Job(encoder.sequence(side, (turn,)), compressed) for compressed in (False, True) for side in sides]
    answerer = Answerer(model, collator, encoder.tokenizer, [encoder.tokenizer.eos_token_id], [*encoder.chorus_ids, encoder.image_id])
    asked = [encoder.sequence(side, open_question="what colour?") for side in sides]
    with torch.no_grad():
        return {
            "vectors": embed(model, collator, [encoder.sequence(side) for side in sides]),
            "losses": model(collator([[job] for job in jobs]))[1],
            "answers": [answer for mode in ("native", "compressed") for answer in answerer.answer(asked, mode, max_new_tokens=8)],
        }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_export_is_an_ordinary_folder_of_its_family(runs, family: str) -> None:
    folder = runs["folder"] / family
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert model.config.model_type == family and len(model.config.chorus_token_ids) == 4
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
    assert AutoImageProcessor.from_pretrained(folder).patch_size == (16 if family == "qwen3_vl" else 14)
    assert AutoTokenizer.from_pretrained(folder).chat_template
