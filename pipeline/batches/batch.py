"""The tensors of one forward pass.

Shapes: R rows, T tokens a row, S sequences, K chorus tokens, N answer tokens, P patches, I images.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Several sequences packed into rows, with everything the model asks for."""

    ids: Tensor
    """int64 [R, T] token ids."""
    roles: Tensor
    """uint8 [R, T] `schema.Role`; padding has CONTEXT."""
    documents: Tensor
    """int64 [R, T] number of the sequence within the batch, -1 for padding."""
    compressed: Tensor
    """bool [R, T] z of the token's sequence: True hides its context from its prompt and answer."""
    positions: Tensor
    """int64 [3, R, T] M-RoPE positions, counted from zero in each sequence."""
    pixels: Tensor
    """float32 [P, C] flattened, normalised patches of all images in order of their placeholders."""
    grids: Tensor
    """int64 [I, 3] patches of each image in time, height and width."""
    image_tokens: Tensor
    """int64 scalar: image tokens that placeholders show; patches beyond belong to a blank image."""
    chorus_index: Tensor
    """int64 [S, K] where each sequence's chorus stands in the flattened tokens."""
    answer_index: Tensor
    """int64 [N] positions in the flattened tokens whose next token is an answer token."""
    answer_labels: Tensor
    """int64 [N] those next tokens."""
    embedding_slots: Tensor
    """int64 [S] place of each sequence's embedding among this rank's embeddings of the step, -1: not needed."""

    def to(self, device: torch.device) -> "PackedBatch":
        """The same batch on another device."""
        return PackedBatch(**{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)})

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.documents >= 0).sum())

    @property
    def padding_share(self) -> float:
        """Share of padding among all token places."""
        return 1.0 - self.tokens / self.ids.numel()
