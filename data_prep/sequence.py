"""One encoded sequence: what `encode` makes, shards store and batches are packed from."""

from dataclasses import dataclass

import numpy as np

from data_prep.schema import Role
from data_prep.stored import PreparedImage


@dataclass(frozen=True)
class TokenSequence:
    """One sequence: `ids` int32 [T], `roles` uint8 [T] (`schema.Role`), and its images in order of their placeholders."""

    ids: np.ndarray
    roles: np.ndarray
    images: tuple[PreparedImage, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def count_answer_tokens(sequence: TokenSequence) -> int:
    """How many tokens of the sequence carry a label."""
    return int((sequence.roles == Role.ANSWER).sum())
