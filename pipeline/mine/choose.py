"""Which neighbours of a query become its negatives. Pure.

The nearest neighbours of a query are where the missing labels are: among the first of MS MARCO's, 70 % were found to be unmarked
positives (Qu et al., RocketQA, arXiv 2010.08191). So the first ranks are left out, and so is what scores too near the positive (the
positive-aware margin of Moreira et al., NV-Retriever, arXiv 2407.15831).
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.mine.search import NONE


class ChooseSettings(BaseModel):
    """Which neighbours, and how many."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    negatives: int = Field(default=1, gt=0)
    """Negatives per row, at most."""
    first_rank: int = Field(default=10, gt=0)
    """Nearest rank that is considered, from 1; own positives do not count. A subset with fewer targets gets no negatives."""
    last_rank: int = Field(default=50, gt=0)
    """Furthest rank that is considered."""
    margin: float = Field(default=0.05, ge=-2, le=2)
    """A candidate whose cosine is above the positive's less this is taken for a false negative. Below 0: it may exceed the positive's."""
    seed: int = 0
    """Another seed, other draws from the ranks."""

    @model_validator(mode="after")
    def _in_order(self) -> "ChooseSettings":
        if self.last_rank < self.first_rank:
            raise ValueError(f"last_rank = {self.last_rank}: expected at least first_rank = {self.first_rank}")
        return self


@dataclass(frozen=True)
class Chosen:
    """Candidate numbers, nearest first; how many ranks were looked at, and how many of those were probable false negatives."""

    numbers: tuple[int, ...]
    considered: int
    dropped: int


def choose(
    row_id: str, found_k: np.ndarray, scores_k: np.ndarray, positive_score: float, never: Collection[int], settings: ChooseSettings
) -> Chosen:
    """Draw a row's negatives from its ranks; the draw depends on row, seed and what is left to draw from alone.

    Args:
        found_k, scores_k: candidate numbers and cosines, best first, as `search.nearest` gives them.
        positive_score: cosine of query and positive.
        never: candidates that say or show the same as a positive of this query; they have no rank.
    """
    ranked = [(int(n), float(s)) for n, s in zip(found_k, scores_k, strict=True) if n != NONE and int(n) not in never]
    window = ranked[settings.first_rank - 1 : settings.last_rank]
    left = [number for number, score in window if score <= positive_score - settings.margin]
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{settings.seed}/{row_id}".encode()).digest()[:8]))
    drawn = sorted(random.permutation(len(left))[: settings.negatives])
    return Chosen(tuple(left[place] for place in drawn), len(window), len(window) - len(left))
