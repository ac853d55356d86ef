"""A chorus cache on disk: back as it was, or refused."""

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.encode import Encoder
from data_prep.samples import DataError
from pipeline.evaluate.stored import FORMAT, StoredContext, checkpoint_digest


def cache(contexts: int = 3, k: int = 2, dtype: torch.dtype = torch.float32) -> StoredContext:
    """Two layers, one head, head size 4."""
    keys, values = torch.randn(2, 2, contexts, 1, k, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    return StoredContext(keys, values, tuple(range(20, 20 + contexts)), tuple(range(40, 40 + contexts)), "ab" * 32)


def same(ours: StoredContext, other: StoredContext) -> bool:
    values = [(getattr(ours, field.name), getattr(other, field.name)) for field in dataclasses.fields(ours)]
    return all(a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_back_as_it_was(tmp_path, dtype) -> None:
    cache(dtype=dtype).save(tmp_path / "deep" / "a.safetensors")
    assert same(StoredContext.load(tmp_path / "deep" / "a.safetensors"), cache(dtype=dtype))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.safetensors"]
    assert load_file(tmp_path / "deep" / "a.safetensors")["keys"].shape == (2, 3, 1, 2, 4)


def test_shares_and_selection() -> None:
    stored = cache()
    assert (len(stored), stored.k, stored.cache_shares) == (3, 2, [2 / 40, 2 / 41, 2 / 42])
    part = stored.select([2, 0, 2])
    assert (part.next_positions, part.prefix_lengths) == ((22, 20, 22), (42, 40, 42))
    assert torch.equal(part.keys_LBHkE[:, 1], stored.keys_LBHkE[:, 0]) and torch.equal(part.values_LBHkE[:, 2], stored.values_LBHkE[:, 2])
    context = part.context(torch.zeros(1, dtype=torch.bfloat16))
    assert len(context.keys) == 2 and context.keys[0].dtype == torch.bfloat16 and context.keys[0].shape == (3, 1, 2, 4)
    assert context.cache_shares == part.cache_shares


@pytest.mark.parametrize(
    "change",
    [
        dict(next_positions=(1, 2)),
        dict(prefix_lengths=()),
        dict(keys_LBHkE=torch.zeros(2, 3, 1, 1, 4)),
        dict(keys_LBHkE=torch.zeros(3, 1, 2, 4), values_LBHkE=torch.zeros(3, 1, 2, 4)),
    ],
)
def test_parts_that_do_not_fit(change) -> None:
    with pytest.raises(DataError, match=r"chorus cache: found keys .* expected keys and values of one shape"):
        dataclasses.replace(cache(), **change)


def test_files_that_are_no_cache(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(DataError, match="found no such file"):
        StoredContext.load(path)
    path.write_bytes(b"not a cache")
    with pytest.raises(DataError, match="found no readable chorus cache"):
        StoredContext.load(path)
    save_file({"keys": torch.zeros(1)}, path)
    with pytest.raises(DataError, match=f"found no format entry; expected {FORMAT}"):
        StoredContext.load(path)
    save_file({"keys": torch.zeros(1)}, path, {"format": "crem-chorus-cache/2"})
    with pytest.raises(DataError, match=r"found crem-chorus-cache/2; expected crem-chorus-cache/1\. Make it again"):
        StoredContext.load(path)
    for metadata in ({}, {"next_positions": "[1", "prefix_lengths": "[1]"}, {"next_positions": "[[1]]", "prefix_lengths": "[1]"}):
        save_file({"keys": torch.zeros(1)}, path, {"format": FORMAT, "checkpoint": "ab"} | metadata)
        with pytest.raises(DataError, match="found no readable chorus cache"):
            StoredContext.load(path)


def test_a_cut_file_is_refused(tmp_path) -> None:
    cache().save(tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-8])
    with pytest.raises(DataError, match="found no readable chorus cache"):
        StoredContext.load(tmp_path / "a.safetensors")


def test_the_digest_follows_weights_and_configuration(checkpoint, encoder, tmp_path) -> None:
    same_digest = checkpoint_digest(checkpoint, encoder)
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    assert checkpoint_digest(copy, Encoder(copy)) == same_digest == checkpoint_digest(str(checkpoint), encoder.shortened(2))
    weights = load_file(copy / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    altered = checkpoint_digest(copy, encoder)
    shutil.copy(checkpoint / "model.safetensors", copy)
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace("1000000.0", "500000.0"))
    assert text != (copy / "config.json").read_text()
    assert len({same_digest, altered, checkpoint_digest(copy, encoder)}) == 3
