"""What numbers depend on: a checkpoint's files and the source, by their bytes; this process's arithmetic, by name."""

import hashlib
import json
import shutil

import pytest
import torch

from data_prep.samples import DataError
from pipeline.evaluate import identity
from pipeline.evaluate.identity import checkpoint_files, numerics, of_run, one_thread, source_digest


def test_every_file_that_a_checkpoint_is_made_of_counts(checkpoint, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    before = checkpoint_files(str(copy))
    needed = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "preprocessor_config.json"}
    assert needed <= before.keys() and before == checkpoint_files(str(checkpoint))
    assert before["config.json"] == hashlib.sha256((copy / "config.json").read_bytes()).hexdigest()
    for name in before:
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole + b" ")
        assert [other for other, digest in checkpoint_files(str(copy)).items() if digest != before[other]] == [name]
        (copy / name).write_bytes(whole)
    (copy / "notes.md").write_text("of no consequence")
    assert checkpoint_files(str(copy)) == before


def test_a_folder_without_weights_is_refused(checkpoint, tmp_path) -> None:
    shutil.copytree(checkpoint, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(DataError, match=r"found no weights \(\*\.safetensors\) in .*copy; expected them beside config\.json"):
        checkpoint_files(str(tmp_path / "copy"))


def test_the_source_counts(tmp_path, monkeypatch) -> None:
    for folder in identity.SOURCE:
        shutil.copytree(identity.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    before = source_digest()
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    assert source_digest() == before
    for name in ("data_prep/template.py", "pipeline/evaluate/embed.py", "pipeline/model/mask.py", "pipeline/batches/collate.py"):
        path = tmp_path / name
        path.write_text(path.read_text() + "\n")
        assert before != (before := source_digest())


def test_this_process(checkpoint) -> None:
    known = numerics()
    assert known == numerics() and known["torch"] == torch.__version__ and known["device"]
    assert json.loads(json.dumps(of_run(str(checkpoint), known)))["numerics"] == known


def test_one_thread_for_a_while() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
