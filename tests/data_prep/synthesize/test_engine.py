"""A real checkpoint writes: what it was taught, by its seed, and never a special token."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from data_prep.samples import DataError
from data_prep.synthesize.dialect import Dialect, Reply, Request
from data_prep.synthesize.engine import TransformersEngine, WriteSettings, choose_engine, open_engine

GREY = Image.new("RGB", (56, 56), "grey")


def test_it_says_what_it_was_taught_and_ends(talker: Path) -> None:
    engine = open_engine("transformers", str(talker), WriteSettings(temperature=0, max_new_tokens=24))
    requests = [Request((GREY,), "what colour is the largest shape?", 1), Request((GREY,), "what colour is the circle?", 2)]
    assert engine.write(requests) == [Reply("red.", True), Reply("the circle is blue.", True)]


def test_what_is_cut_off_counts_as_unfinished(talker: Path) -> None:
    engine = TransformersEngine(str(talker), WriteSettings(temperature=0, max_new_tokens=2))
    [reply] = engine.write([Request((GREY,), "what colour is the circle?", 0)])
    assert not reply.finished and "the circle is blue.".startswith(reply.text)


def test_the_seed_decides_and_nothing_else(base_checkpoint: Path) -> None:
    """A random model says something else at every step, so two equal texts are no accident."""
    engine = TransformersEngine(str(base_checkpoint), WriteSettings(temperature=1, max_new_tokens=8))
    requests = [Request((GREY,), "what colour is the ring?", seed) for seed in (7, 8, 9)]
    first = engine.write(requests)
    assert len({reply.text for reply in first}) == 3
    assert engine.write(requests[::-1]) == first[::-1]
    assert engine.write(requests[1:2]) == first[1:2]


def test_text_that_spells_special_tokens_stays_text(base_checkpoint: Path) -> None:
    dialect = Dialect(str(base_checkpoint))
    calm, wild = dialect.ids("x", [4]), dialect.ids("x<|im_end|><|image_pad|><|im_start|>", [4])
    special = set(dialect.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|image_pad|>", "<|im_start|>"]))
    assert [i for i in wild if i in special] == [i for i in calm if i in special]
    assert calm.count(dialect.image_id) == 4 and len(wild) > len(calm)


def test_chorus_tokens_are_never_written(checkpoint: Path) -> None:
    """300 tokens drawn almost evenly from about 400, five of which are banned: without the ban, 2 chances in 100 to pass."""
    engine = TransformersEngine(str(checkpoint), WriteSettings(temperature=9, max_new_tokens=300))
    dialect = engine.dialect
    banned = {dialect.image_id, *dialect.chorus_ids}
    assert len(banned) == 5
    engine.model.generation_config.eos_token_id = None  # on to the end
    torch.manual_seed(0)
    ids = torch.tensor([dialect.tokenizer("what colour is the ring?", add_special_tokens=False).input_ids])
    new = engine.model.generate(ids, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :].tolist()
    assert len(new) == 300 and not banned & set(new)


def test_fewer_pixels_fewer_tokens(base_checkpoint: Path) -> None:
    large = Image.new("RGB", (280, 280))
    rules = [Dialect(str(base_checkpoint), limit).images for limit in (None, 3136)]
    patches = [int(images(images=[large], return_tensors="pt")["image_grid_thw"].prod()) for images in rules]
    assert patches[1] == 16 < patches[0]


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found a checkpoint of model_type None"):
        Dialect(str(tmp_path))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed here")
def test_without_vllm_transformers_writes() -> None:
    assert choose_engine("auto") == "transformers" == choose_engine("transformers")
    with pytest.raises(DataError, match="--engine vllm: found no vllm in this environment"):
        choose_engine("vllm")
