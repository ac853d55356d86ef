"""The chorus in spare rows or in new ones; what was there before stays as it was."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from data_prep.encode import Encoder
from data_prep.samples import DataError, Side
from data_prep.schema import Role
from pipeline.model.chorus import add_chorus


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForImageTextToText.from_pretrained(folder)


def test_spare_rows_are_used_without_resizing(base_checkpoint: Path, tmp_path: Path) -> None:
    ids = add_chorus(base_checkpoint, tmp_path / "out", k=16)
    before, after = load(base_checkpoint), load(tmp_path / "out")
    first = len(AutoTokenizer.from_pretrained(base_checkpoint))
    assert ids == list(range(first, first + 16))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["chorus_token_ids"] == ids
    old_VD, new_VD = before.get_input_embeddings().weight, after.get_input_embeddings().weight
    assert new_VD.shape == old_VD.shape
    changed = (new_VD != old_VD).any(1).nonzero().flatten().tolist()
    assert changed == ids
    assert after.get_output_embeddings().weight is new_VD
    others = dict(after.named_parameters())
    assert all(torch.equal(p, others[name]) for name, p in before.named_parameters() if p is not old_VD)


def test_the_tokenizer_knows_them(base_checkpoint: Path, tmp_path: Path) -> None:
    ids = add_chorus(base_checkpoint, tmp_path / "out", k=3)
    before, after = AutoTokenizer.from_pretrained(base_checkpoint), AutoTokenizer.from_pretrained(tmp_path / "out")
    assert after("<|chorus_0|><|chorus_1|><|chorus_2|>", add_special_tokens=False).input_ids == ids
    assert len(after) == len(before) + 3
    assert after.chat_template == before.chat_template
    text = "a red circle<|im_end|>\n"
    assert after(text).input_ids == before(text).input_ids
    one, two = (AutoImageProcessor.from_pretrained(folder).to_dict() for folder in (base_checkpoint, tmp_path / "out"))
    assert one == two


def test_new_rows_lie_near_the_known_ones_and_apart_from_each_other(base_checkpoint: Path, tmp_path: Path) -> None:
    ids = add_chorus(base_checkpoint, tmp_path / "out", k=16)
    weight_VD = load(tmp_path / "out").get_input_embeddings().weight.detach()
    known_VD, chorus_KD = weight_VD[: ids[0]], weight_VD[ids]
    ratio = ((chorus_KD - known_VD.mean(0)) / known_VD.std(0)).std().item()
    assert 0.45 < ratio < 0.55
    assert torch.pdist(chorus_KD).min() > 0


def test_seeds(base_checkpoint: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        add_chorus(base_checkpoint, tmp_path / name, k=4, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.fixture
def full(base_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint without spare rows."""
    folder = shutil.copytree(base_checkpoint, tmp_path / "full")
    model = load(base_checkpoint)
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(base_checkpoint)))
    model.save_pretrained(folder)
    return folder


def test_without_room_the_embedding_grows(full: Path, tmp_path: Path) -> None:
    ids = add_chorus(full, tmp_path / "out", k=4)
    before, after = load(full), load(tmp_path / "out")
    old_VD, new_VD = before.get_input_embeddings().weight, after.get_input_embeddings().weight
    assert old_VD.shape[0] == ids[0]
    assert new_VD.shape[0] % 64 == 0 and new_VD.shape[0] > ids[-1]
    assert after.config.text_config.vocab_size == new_VD.shape[0]
    assert torch.equal(new_VD[: ids[0]], old_VD)
    assert after.get_output_embeddings().weight is new_VD
    ratio = ((new_VD[ids] - old_VD.mean(0)) / old_VD.std(0)).std().item()
    assert 0.4 < ratio < 0.6


def test_untied_output_rows_are_written_too(base_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base_checkpoint, tmp_path / "untied")
    model = load(base_checkpoint)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() * 3)
    model.save_pretrained(folder)
    ids = add_chorus(folder, tmp_path / "out", k=4)
    before, after = load(folder), load(tmp_path / "out")
    for name in ("get_input_embeddings", "get_output_embeddings"):
        old_VD, new_VD = getattr(before, name)().weight, getattr(after, name)().weight
        assert (new_VD != old_VD).any(1).nonzero().flatten().tolist() == ids
    assert not torch.equal(after.get_input_embeddings().weight, after.get_output_embeddings().weight)


def test_none_is_end_of_sequence_pooling(base_checkpoint: Path, tmp_path: Path) -> None:
    """Weights and tokenizer stay as they are; the embedding is the end-of-sequence token's state (the paper's baseline)."""
    ids = add_chorus(base_checkpoint, tmp_path / "out", k=0)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (base_checkpoint, tmp_path / "out")]
    assert ids == [tokenizers[1].convert_tokens_to_ids("<|endoftext|>")] and len(tokenizers[0]) == len(tokenizers[1])
    before, after = load(base_checkpoint).state_dict(), load(tmp_path / "out").state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    encoder = Encoder(tmp_path / "out")
    sequence = encoder.sequence(Side("a red circle"))
    assert sequence.ids[-1] == ids[0] and (sequence.roles == Role.CHORUS).nonzero()[0].tolist() == [len(sequence) - 1]


def test_never_twice(checkpoint: Path, base_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has chorus tokens already; start from the checkpoint it was made from"):
        add_chorus(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    add_chorus(base_checkpoint, tmp_path / "out", k=1)
    with pytest.raises(DataError, match="exists: expected a new folder"):
        add_chorus(base_checkpoint, tmp_path / "out", k=1)


def test_wrong_input_is_named(base_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="k = -1: expected at least one chorus token, or 0 for end-of-sequence pooling"):
        add_chorus(base_checkpoint, tmp_path / "out", k=-1)
    with pytest.raises(DataError, match="found no checkpoint there"):
        add_chorus(tmp_path / "none", tmp_path / "out")
