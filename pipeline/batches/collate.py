"""TokenSequences -> `PackedBatch`: packing, positions, pixels.

Rows are filled first-fit with the longest sequences first, and are no wider than they need be; a sequence is never split. Positions
come from the model's own M-RoPE rule, once per layout (text lengths and image grids) and are then remembered. A batch without any image
gets one blank image, so that every rank's forward calls the vision tower.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_prep.sequence import TokenSequence
from data_prep.stored import PreparedImage
from pipeline.batches.batch import PackedBatch
from pipeline.batches.layout import PAD_DOCUMENT, answer_index, chorus_index
from pipeline.batches.pixels import Patcher

REMEMBERED = 4096
"""Layouts whose positions are remembered at a time."""


@dataclass(frozen=True)
class Job:
    """A sequence with what this step asks of it: z, and where its embedding belongs (-1: not needed)."""

    sequence: TokenSequence
    compressed: bool = False
    slot: int = -1


class Collator:
    """Builds packed batches for one checkpoint.

    Args:
        image_processor: the checkpoint's own; how it normalises and cuts patches is followed (sizes are already right).
        rope_index: the model's `get_rope_index`.
        image_id: id of the image placeholder token.
        pad_id: any valid token id.
    """

    def __init__(self, image_processor, rope_index: Callable, image_id: int, pad_id: int = 0):
        self.image_processor = image_processor
        self.rope_index = rope_index
        self.image_id = image_id
        self.pad_id = pad_id
        self._patches = Patcher(image_processor)
        self._positions: dict[tuple, Tensor] = {}

    def __call__(self, rows: Sequence[Sequence[Job]]) -> PackedBatch:
        """Pack the given rows of sequences; the batch numbers sequences in the order given."""
        width = max((sum(len(job.sequence) for job in row) for row in rows), default=0) or 1
        shape = (max(len(rows), 1), width)
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        roles = torch.zeros(shape, dtype=torch.uint8)
        documents = torch.full(shape, PAD_DOCUMENT, dtype=torch.long)
        compressed = torch.zeros(shape, dtype=torch.bool)
        positions = torch.zeros((3, *shape), dtype=torch.long)
        jobs: list[Job] = []
        for r, row in enumerate(rows):
            start = 0
            for job in row:
                place = slice(start, start := start + len(job.sequence))
                ids[r, place] = torch.from_numpy(job.sequence.ids.astype(np.int64))
                roles[r, place] = torch.from_numpy(job.sequence.roles)
                documents[r, place] = len(jobs)
                compressed[r, place] = job.compressed
                positions[:, r, place] = self.positions(job.sequence)
                jobs.append(job)
        images = [image for job in jobs for image in job.sequence.images]
        pixels, grids = self.pixels(images)
        answers = answer_index(roles, documents)
        return PackedBatch(
            ids=ids,
            roles=roles,
            documents=documents,
            compressed=compressed,
            positions=positions,
            pixels=pixels,
            grids=grids,
            image_tokens=(ids == self.image_id).sum(),
            chorus_index=chorus_index(roles, documents, len(jobs)) if jobs else torch.zeros((0, 1), dtype=torch.long),
            answer_index=answers,
            answer_labels=ids.flatten()[answers + 1],
            embedding_slots=torch.tensor([job.slot for job in jobs], dtype=torch.long),
        )

    def pixels(self, images: Sequence[PreparedImage]) -> tuple[Tensor, Tensor]:
        """Decode, normalise and cut into patches: float32 [P, C] and int64 [I, 3]; a blank image where there is none."""
        arrays = [np.array(Image.open(io.BytesIO(image.data)).convert("RGB")) for image in images]  # a copy, which torch may share
        if not arrays:
            side = self.image_processor.patch_size * self.image_processor.merge_size
            arrays = [np.zeros((side, side, 3), np.uint8)]
        return self._patches(arrays)

    def positions(self, sequence: TokenSequence) -> Tensor:
        """int64 [3, T] M-RoPE positions of one sequence, by the model's rule."""
        kinds = sequence.ids == self.image_id
        patch = self.image_processor.patch_size
        grids = [(1, image.height // patch, image.width // patch) for image in sequence.images]
        runs = np.flatnonzero(np.diff(kinds.astype(np.int8)))
        key = (len(kinds), tuple(grids), tuple(runs.tolist()))
        found = self._positions.get(key)  # chunks are packed in threads: what one remembers another may clear
        if found is None:
            positions, _ = self.rope_index(
                torch.from_numpy(sequence.ids.astype(np.int64))[None],
                mm_token_type_ids=torch.from_numpy(kinds.astype(np.int64))[None],
                image_grid_thw=torch.tensor(grids, dtype=torch.long) if grids else None,
            )
            if len(self._positions) >= REMEMBERED:
                self._positions.clear()
            found = self._positions[key] = positions[:, 0]
        return found


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """First-fit decreasing: indices of `lengths` grouped into rows of at most `row_tokens` (a longer one gets its own row).

    The result depends on the lengths alone; every index occurs exactly once.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for row, left in enumerate(room):
            if lengths[index] <= left:
                rows[row].append(index)
                room[row] -= lengths[index]
                break
        else:
            rows.append([index])
            room.append(row_tokens - lengths[index])
    return rows


def lay_out(lengths: Sequence[int], row_tokens: int, chunk_tokens: int) -> list[list[list[int]]]:
    """Chunks of rows of indices of `lengths`, for as little padding as the number of rows allows.

    First-fit decides how many rows of `row_tokens` (of the longest sequence, where that is longer) are needed; then the narrowest width
    that still needs no more is found by bisection (MULTIFIT, Coffman, Garey & Johnson 1978), so that what one row would have been short
    of is spread over all. A chunk has at most `chunk_tokens` places, padding included, but one row at least.
    """
    longest = max(lengths, default=0)
    rows = pack(lengths, max(row_tokens, longest))
    # no row is wider than `wide`; nothing narrower than `narrow` could do
    wide = max((sum(lengths[i] for i in row) for row in rows), default=0)
    narrow = max(longest, -(-sum(lengths) // max(1, len(rows))))
    while narrow < wide:
        middle = (narrow + wide) // 2
        narrower = pack(lengths, middle)
        if len(narrower) <= len(rows):
            rows, wide = narrower, max(sum(lengths[i] for i in row) for row in narrower)
        else:
            narrow = middle + 1
    per_chunk = max(1, chunk_tokens // max(1, wide))
    return [rows[start : start + per_chunk] for start in range(0, len(rows), per_chunk)]
