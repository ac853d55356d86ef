"""The tokens with which all sequences begin, run once: every prompt opens with the same words of the chat format.

Attention is causal, so the states of those tokens do not depend on what follows, and what follows sees no more of them than their keys and
values. These are computed once and put before every row. Short texts, of which most candidates consist, are a third to a half such tokens.

Shapes: P tokens of the head, R rows, H key-value heads, E head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import DynamicCache

from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from pipeline.batches.collate import Collator, Job
from pipeline.model.crem import Crem


@dataclass(frozen=True)
class Head:
    """Keys and values of each layer, [1, H, P, E] each."""

    layers: list[tuple[Tensor, Tensor]]
    config: object
    """Of the language model: what a cache is made for."""

    def before(self, rows: int) -> DynamicCache:
        """A cache in which the head stands before `rows` rows."""
        cache = DynamicCache(config=self.config)
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), number)
        return cache


def shared_length(sequences: Sequence[TokenSequence], image_id: int) -> int:
    """P: how many tokens all sequences begin with alike, of context and text alone; 0 where that would save nothing (one sequence)."""
    if len(sequences) < 2:
        return 0
    first = sequences[0]
    other = (first.ids == image_id) | (first.roles != Role.CONTEXT)
    shared = int(other.argmax()) if other.any() else len(first)
    for sequence in sequences[1:]:
        shared = min(shared, len(sequence))
        alike = (sequence.ids[:shared] == first.ids[:shared]) & (sequence.roles[:shared] == Role.CONTEXT)
        shared = shared if alike.all() else int(np.argmin(alike))
    return shared


def read_head(model: Crem, collator: Collator, sequence: TokenSequence, length: int) -> Head:
    """Run the first `length` tokens of a sequence."""
    config = model.backbone.config.get_text_config()
    cache = DynamicCache(config=config)
    head = TokenSequence(sequence.ids[:length], sequence.roles[:length])
    model.hidden(collator([[Job(head)]]).to(next(model.parameters()).device), cache)
    return Head([(layer.keys, layer.values) for layer in cache.layers], config)


def without_head(sequence: TokenSequence, length: int) -> TokenSequence:
    """What follows the head. Text counts positions one by one, so its positions are `length` less than in the whole sequence."""
    return TokenSequence(sequence.ids[length:], sequence.roles[length:], sequence.images)
