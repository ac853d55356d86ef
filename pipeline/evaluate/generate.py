"""Answers, natively and from the chorus alone, by one decoding loop over a key-value cache.

    prefix    context + chorus       forward once, keep the cache
    keep      native: every key; compressed: only the K chorus keys (CREM, compressed generation)
    suffix    question               forward against what was kept
    decode    greedy, token by token

Positions are never renumbered: whatever follows the chorus keeps the M-RoPE position it has in the full sequence, so decoding from the
pruned cache equals a full forward under the compression mask (z = 1), and native decoding equals z = 0. A pruned cache needs no image;
it can be stored and answered from later.

Shapes: B sequences, C kept cache places, Q question tokens, L layers, H key-value heads, E head size.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from pipeline.batches.collate import Collator, Job
from pipeline.model.crem import Crem

Mode = Literal["native", "compressed"]


@dataclass(frozen=True)
class Context:
    """What answers read: cached keys and values of each layer [B, H, C, E], which places are real, and how much was pruned."""

    keys: list[Tensor]
    values: list[Tensor]
    visible_BC: Tensor
    """bool: False for padding."""
    prefix_lengths: tuple[int, ...]
    """Tokens of each context with its chorus, before pruning."""

    @property
    def cache_shares(self) -> list[float]:
        """Share of each context's cache that is kept: K / prefix length when compressed, 1 when native."""
        return [int(kept) / length for kept, length in zip(self.visible_BC.sum(1), self.prefix_lengths, strict=True)]


@dataclass(frozen=True)
class Answer:
    """A decoded answer; `finished` is False where it ran into the token limit."""

    text: str
    cache_share: float
    finished: bool


class Answerer:
    """Answers open questions with one model.

    Args:
        tokenizer: decodes answers.
        stop_ids: tokens that end an answer.
        banned_ids: tokens that are never generated (chorus and vision placeholders are inputs, not words).
    """

    def __init__(self, model: Crem, collator: Collator, tokenizer, stop_ids: Collection[int], banned_ids: Collection[int]):
        self.model, self.collator, self.tokenizer = model, collator, tokenizer
        self.stop_ids = torch.tensor(sorted(stop_ids))
        self.banned_ids = torch.tensor(sorted(banned_ids))

    def answer(self, sequences: Sequence[TokenSequence], mode: Mode, max_new_tokens: int = 64) -> list[Answer]:
        """Answer sequences that end with an open question (`Encoder.sequence(..., open_question=...)`)."""
        split = [split_after_chorus(sequence) for sequence in sequences]
        context = self.read([prefix for prefix, _ in split], mode)
        positions = [self.collator.positions(sequence)[0, len(p) :] for sequence, (p, _) in zip(sequences, split, strict=True)]
        return self.continue_from(context, [question for _, question in split], positions, max_new_tokens)

    @torch.no_grad()
    def read(self, prefixes: Sequence[TokenSequence], mode: Mode) -> Context:
        """Run contexts with their chorus and keep the cache, whole or pruned to the chorus."""
        batch = self.collator([[Job(prefix)] for prefix in prefixes]).to(self._device)
        cache = DynamicCache(config=self.model.backbone.config.get_text_config())
        self.model.hidden(batch, cache)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        visible_BC = batch.documents >= 0
        if mode == "compressed":
            width = batch.ids.shape[1]
            index_BK = batch.chorus_index - torch.arange(len(prefixes), device=self._device)[:, None] * width
            layers = [(_take(keys, index_BK), _take(values, index_BK)) for keys, values in layers]
            visible_BC = torch.ones_like(index_BK, dtype=torch.bool)
        lengths = tuple(len(prefix) for prefix in prefixes)
        return Context([keys for keys, _ in layers], [values for _, values in layers], visible_BC, lengths)

    @torch.no_grad()
    def continue_from(self, context: Context, questions: Sequence[np.ndarray], positions: Sequence[Tensor], limit: int) -> list[Answer]:
        """Decode from a context, freshly read or stored.

        Args:
            questions: token ids after the chorus, one array per sequence.
            positions: M-RoPE position of each of them (text: the same on all three axes), as in the full sequence.
            limit: tokens decoded at most.
        """
        cache = DynamicCache(config=self.model.backbone.config.get_text_config())
        for layer, (keys, values) in enumerate(zip(context.keys, context.values, strict=True)):
            cache.update(keys, values, layer)
        ids_BQ = pad_sequence([torch.from_numpy(q.astype(np.int64)) for q in questions], batch_first=True).to(self._device)
        at_BQ = pad_sequence(list(positions), batch_first=True).to(self._device)
        lengths_B = torch.tensor([len(q) for q in questions], device=self._device)
        real_BQ = torch.arange(ids_BQ.shape[1], device=self._device) < lengths_B[:, None]
        next_B = self._choose(self._forward(ids_BQ, at_BQ, context.visible_BC, real_BQ, cache))
        at_B = at_BQ[torch.arange(len(questions), device=self._device), lengths_B - 1]
        visible = torch.cat([context.visible_BC, real_BQ], dim=1)
        tokens, done_B = [], torch.zeros(len(questions), dtype=torch.bool, device=self._device)
        while True:
            done_B = done_B | torch.isin(next_B, self.stop_ids.to(self._device))
            tokens.append(torch.where(done_B, -1, next_B))
            if len(tokens) >= limit or bool(done_B.all()):
                break
            at_B = at_B + 1
            one = torch.ones((len(questions), 1), dtype=torch.bool, device=self._device)
            next_B = self._choose(self._forward(next_B[:, None], at_B[:, None], visible, one, cache))
            visible = torch.cat([visible, one], dim=1)
        decoded = torch.stack(tokens, dim=1).tolist()
        texts = [self.tokenizer.decode([t for t in row if t >= 0], skip_special_tokens=True).strip() for row in decoded]
        return [Answer(text, share, bool(done)) for text, share, done in zip(texts, context.cache_shares, done_B, strict=True)]

    def _forward(self, ids_BQ: Tensor, at_BQ: Tensor, visible_BC: Tensor, real_BQ: Tensor, cache: DynamicCache) -> Tensor:
        """Run new tokens, which see every visible cached place and each other causally; logits [B, V] after each row's last real one."""
        new = ids_BQ.shape[1]
        causal_QQ = torch.ones(new, new, dtype=torch.bool, device=ids_BQ.device).tril()
        among_BQQ = causal_QQ & real_BQ[:, None, :] | torch.eye(new, dtype=torch.bool, device=ids_BQ.device)
        mask = torch.cat([visible_BC[:, None, :].expand(-1, new, -1), among_BQQ], dim=2)[:, None]
        model = self.model.backbone
        hidden = model.model.language_model(
            inputs_embeds=model.get_input_embeddings()(ids_BQ),
            attention_mask=mask,
            position_ids=at_BQ[None].expand(3, -1, -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        # no other place's logits are needed, and a vocabulary of them for every token of a long question is gigabytes
        return model.lm_head(hidden[torch.arange(len(hidden), device=hidden.device), real_BQ.sum(1) - 1]).float()

    def _choose(self, logits_BV: Tensor) -> Tensor:
        return logits_BV.index_fill(1, self.banned_ids.to(logits_BV.device), float("-inf")).argmax(dim=1)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def by_length(sequences: Sequence[TokenSequence], batch: int) -> Iterator[list[int]]:
    """Every index once, in batches of similar length, so that little is padded."""
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def split_after_chorus(sequence: TokenSequence) -> tuple[TokenSequence, np.ndarray]:
    """Context with its chorus, and the token ids that follow."""
    end = int(np.flatnonzero(sequence.roles == Role.CHORUS)[-1]) + 1
    return TokenSequence(sequence.ids[:end], sequence.roles[:end], sequence.images), sequence.ids[end:]


def _take(cache_BHTE: Tensor, index_BK: Tensor) -> Tensor:
    """The cache at the given places: [B, H, K, E]."""
    _, heads, _, size = cache_BHTE.shape
    return cache_BHTE.gather(2, index_BK[:, None, :, None].expand(-1, heads, -1, size))
