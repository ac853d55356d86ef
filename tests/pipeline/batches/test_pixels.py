"""Patches against the checkpoint's own image processor, bit for bit."""

from copy import copy

import numpy as np
import pytest
import torch

from data_prep.checkpoint import FAMILIES
from pipeline.batches.pixels import Patcher


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_image_processor_bit_for_bit(kit_of, family: str) -> None:
    processor = kit_of(family).encoder.images
    side = processor.patch_size * processor.merge_size
    random = np.random.default_rng(0)
    shapes = [(1, 1), (2, 3), (5, 1), (1, 4), (3, 3)]
    pictures = [random.integers(0, 256, (rows * side, columns * side, 3), dtype=np.uint8) for rows, columns in shapes]
    expected = processor(images=pictures, do_resize=False, return_tensors="pt")
    patches, grids = Patcher(processor)(pictures)
    assert patches.dtype == torch.float32 and patches.is_contiguous() and len(patches) == 4 * (1 + 6 + 5 + 4 + 9)
    assert torch.equal(patches, expected["pixel_values"])
    assert grids.tolist() == expected["image_grid_thw"].tolist() == [[1, 2 * rows, 2 * columns] for rows, columns in shapes]


def test_follows_the_checkpoints_own_mean_and_deviation(kit_of) -> None:
    processor = copy(kit_of("qwen2_vl").encoder.images)
    processor.image_mean, processor.image_std = [0.0, 0.5, 1.0], [1.0, 0.5, 0.25]
    picture = np.full((28, 28, 3), (255, 0, 51), np.uint8)
    patches, _ = Patcher(processor)([picture])
    # channel by channel: (1 - 0) / 1, (0 - 0.5) / 0.5, (0.2 - 1) / 0.25
    assert patches.view(4, 3, -1).mean(dim=(0, 2)).tolist() == pytest.approx([1.0, -1.0, -3.2], abs=1e-5)


def test_a_picture_that_does_not_divide_is_refused(kit_of) -> None:
    with pytest.raises(ValueError, match="30 x 28 pixels, expected multiples of 28"):
        Patcher(kit_of("qwen2_vl").encoder.images)([np.zeros((30, 28, 3), np.uint8)])
