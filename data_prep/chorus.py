"""Fewer chorus tokens than a checkpoint has: how many there may be, and a sequence that is left with the first of its own."""

import numpy as np

from data_prep.samples import DataError
from data_prep.schema import Role
from data_prep.sequence import TokenSequence


def chorus_size(k: int | None, available: int, name: str = "k") -> int:
    """How many chorus tokens to use of those a checkpoint has: `k`, or all where it is None.

    Raises:
        DataError: `k`, which the message calls `name`, is not one of 1 .. available.
    """
    if k is not None and not available:
        raise DataError(
            f"{name} = {k}: found a checkpoint without chorus tokens, which is scored as a baseline by its last token; expected no {name}, "
            "or a checkpoint that has some"
        )
    if k is not None and not 1 <= k <= available:
        raise DataError(
            f"{name} = {k}: found a checkpoint of {available} chorus tokens; expected 1 to {available}. More of them "
            "are given before preparation and training: python -m pipeline.model chorus CHECKPOINT OUT --k K"
        )
    return available if k is None else k


def keep_chorus(sequence: TokenSequence, k: int) -> TokenSequence:
    """The sequence with the first `k` of its chorus tokens; what follows moves up, as if it had been encoded for k of them.

    Chorus tokens are causal: the states of the first k do not depend on those that are left out here.

    Raises:
        DataError: the sequence has fewer chorus tokens.
    """
    at_K = np.flatnonzero(sequence.roles == Role.CHORUS)
    left_out = at_K[chorus_size(k, len(at_K)) :]
    if not len(left_out):
        return sequence
    return TokenSequence(np.delete(sequence.ids, left_out), np.delete(sequence.roles, left_out), sequence.images)
