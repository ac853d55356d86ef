"""A plan's step against the steps that the loader really makes; and the assumptions."""

import numpy as np
import pytest

from pipeline.batches.loader import StepLoader
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig
from pipeline.plan.sizes import open_model
from pipeline.plan.work import Assumed, assume, from_shards
from pipeline.recipes import RECIPES


def test_tokens_of_real_steps(shards, checkpoint, collator, encoder):
    """The plan is the mean over many steps: 40 of them come close."""
    config = RunConfig.model_validate(
        {
            "model": {"checkpoint": str(checkpoint)},
            "data": {"shards": str(shards), "mix_exponent": 0.5},
            "batch": {"pairs": 8, "conversations": 3, "sub_batch": 4, "row_tokens": 256, "chunk_tokens": 512},
        }
    )
    work = from_shards(config, encoder.image_id)
    loader = StepLoader(ShardReader(shards, encoder, verify=False), collator, config, 0, 1)
    steps = [loader.step(number) for number in range(40)]
    chunks = [list(step.chunks) for step in steps]
    assert work.tokens == pytest.approx(np.mean([step.tokens for step in steps]), rel=0.03)
    assert work.embedded == pytest.approx(np.mean([step.slots for step in steps]), rel=0.05)
    assert work.image_tokens == pytest.approx(np.mean([sum(int(c.image_tokens) for c in own) for own in chunks]), rel=0.05)
    assert work.answer_tokens == pytest.approx(np.mean([step.answer_tokens for step in steps]), rel=0.08)
    assert (work.pairs, work.rows, work.shards) == (8, 29, 7)


def test_a_source_left_out_counts_for_nothing(shards, encoder):
    data = {"shards": str(shards), "weights": {"asked": 0}}
    config = RunConfig.model_validate({"data": data, "batch": {"pairs": 8, "sub_batch": 4, "conversations": 0}})
    work = from_shards(config, encoder.image_id)
    assert work.embedded == 16 and work.sequences == 16  # source plain: no hard negatives
    assert work.answer_tokens == 0


def test_assumed_rows():
    """1,024 pairs with 1.2 images of 640 tokens and two sides of 64 + 16; 256 conversations of an image, 300 and 16."""
    config = RECIPES["crem_2b"]()
    work = assume(config, open_model(config.model))
    assert work.image_tokens == pytest.approx((1024 * 1.2 + 256) * 640)
    assert work.tokens == pytest.approx(work.image_tokens + 1024 * 2 * 80 + 256 * 316)
    assert (work.embedded, work.sequences, work.answer_tokens, work.rows, work.shards) == (2048, 2304, 38_400, 662_000, 1293)
    assert [work.chunks(ranks) for ranks in (1, 8, 64, 512)] == [73, 10, 2, 1]
    other = assume(config, open_model(config.model), Assumed(image_tokens=1280, rows=100))
    assert other.image_tokens == pytest.approx(2 * work.image_tokens) and other.shards == 1
