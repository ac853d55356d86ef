"""The compression mask without a mask: two plain causal attentions per sequence, behind transformers' AttentionInterface.

CREM's rule (`model.mask`) falls into two parts, each of them causal over a subsequence of one document:

    first    context and chorus attend over all tokens of the document up to themselves
    second   where z = 1, prompt and answer attend over the document without its context up to themselves: [chorus, prompt, answer]

The chorus stands in both, as query where it belongs and as key in either. (Compressed decoding does the same in time: the chorus's keys
stay in the cache, the context's leave it.) So a forward over packed rows is a list of pieces, each a square causal attention, and needs no
T x T mask: memory grows with the tokens, work with the sum of the pieces' squared lengths, and sdpa may choose its flash kernels, which
take no mask. Pieces of like length run in one call, padded at the end, where causal attention never looks.

FlexAttention would be the other way. It has no backward pass on a CPU, so nothing here could hold it to the dense mask, and it
compiles anew for new row widths, of which every step has some. What this form gains on a GPU is not yet measured.

Shapes: R rows, T tokens a row, N = R * T flattened tokens, M tokens of all pieces, P pieces of a call, L places of the longest of them,
H heads (keys and values may have fewer), E head size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from data_prep.schema import Role

NAME = "two_causal"
"""What `attn_implementation` calls it."""

SHORTEST_SHARE = 2 / 3
"""A call takes pieces down to this share of its longest. Higher: less padding, more calls."""


@dataclass(frozen=True)
class Pieces:
    """A forward pass cut into causal attentions; the same for all layers."""

    calls: tuple[Tensor, ...]
    """int64 [P, L] each: the flattened token at every place; a piece shorter than L repeats its last token."""
    place: Tensor
    """int64 [N] where each token's own output stands in all calls' flattened places."""


def cut(roles_RT: Tensor, documents_RT: Tensor, compressed_RT: Tensor) -> Pieces:
    """The pieces of packed rows; arguments as `mask.compression_mask` takes them, in any order of roles and documents.

    Padding is a document like any other, so that no token is without output. Lengths are read by the host: on a GPU it waits for the
    batch once per forward.
    """
    roles_N = roles_RT.flatten()
    reader_N = compressed_RT.flatten() & (roles_N >= Role.PROMPT)
    owner_N = _owners(documents_RT)
    place_N = torch.arange(len(owner_N), device=owner_N.device)
    # the first piece of a document ends with the last token that asks it anything
    end = torch.full((int(owner_N.max()) + 1,), -1, device=owner_N.device)
    end = end.scatter_reduce(0, owner_N, torch.where(reader_N, -1, place_N), "amax")
    read = torch.zeros_like(end, dtype=torch.bool).index_fill(0, owner_N[reader_N], True)
    first = (place_N <= end[owner_N]).nonzero()[:, 0]
    second = (read[owner_N] & (roles_N != Role.CONTEXT)).nonzero()[:, 0]
    # second pieces are numbered after all first ones; sorting is stable, so tokens stay in order
    piece_M = torch.cat([owner_N[first], owner_N[second] + len(end)])
    token_M = torch.cat([first, second])[piece_M.argsort(stable=True)]
    own_M = torch.cat([~reader_N[first], reader_N[second]])[piece_M.argsort(stable=True)]
    lengths = piece_M.bincount()
    return _calls(token_M, own_M, lengths[lengths > 0].tolist())


def _owners(documents_RT: Tensor) -> Tensor:
    """Documents numbered from zero over all rows, the padding of each row among them: int64 [N]."""
    rows = torch.arange(len(documents_RT), device=documents_RT.device)[:, None]
    return (rows * (documents_RT.max() + 2) + documents_RT + 1).flatten().unique(return_inverse=True)[1]


def _calls(token_M: Tensor, own_M: Tensor, lengths: list[int]) -> Pieces:
    """Pieces that lie one after another, put into calls of like length."""
    lengths_P = torch.tensor(lengths, device=token_M.device)
    start_P = lengths_P.cumsum(0) - lengths_P
    place = torch.empty(int(own_M.sum()), dtype=torch.long, device=token_M.device)
    calls, before = [], 0
    for group in _groups(lengths):
        length_P, first_P = lengths_P[group, None], start_P[group, None]
        at_PL = torch.arange(lengths[group[0]], device=token_M.device)
        real_PL = at_PL < length_P
        source_PL = first_P + torch.minimum(at_PL, length_P - 1)
        kept_PL = real_PL & own_M[source_PL]
        calls.append(token_M[source_PL])
        place[calls[-1][kept_PL]] = before + kept_PL.flatten().nonzero()[:, 0]
        before += kept_PL.numel()
    return Pieces(tuple(calls), place)


def _groups(lengths: list[int]) -> Iterator[list[int]]:
    """Numbers of pieces, longest first, a group ending where they become much shorter than its longest."""
    order = sorted(range(len(lengths)), key=lambda p: -lengths[p])
    group: list[int] = []
    for p in order:
        if group and lengths[p] < SHORTEST_SHARE * lengths[group[0]]:
            yield group
            group = []
        group.append(p)
    yield group


def two_causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    pieces: Pieces | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [R, H, T, E] -> [R, T, H, E].

    Args:
        pieces: how to cut; it comes from the caller of the language model through every layer's keyword arguments. None: this is
            not a forward over packed rows (decoding, say), and sdpa runs under the mask as given.

    Raises:
        ValueError: there are pieces, and a mask or earlier keys as well, which they would pass over.
    """
    if pieces is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows, heads, tokens, size = query.shape
    if attention_mask is not None or key.shape[2] != tokens:
        raise ValueError(
            f"{NAME} attention found {key.shape[2]} keys for {tokens} queries and {'a' if attention_mask is not None else 'no'} mask; "
            "expected as many keys as queries and no mask. Continue from a cache without pieces, under a mask"
        )
    # heads last, so that a token is one row of memory
    flat = [states.transpose(1, 2).flatten(0, 1) for states in (query, key, value)]
    kwargs["is_causal"] = True
    outputs = []
    for call_PL in pieces.calls:
        # index_select, since a CPU takes the gradient of plain indexing on one thread
        q, k, v = (states_NHE.index_select(0, call_PL.flatten()).unflatten(0, call_PL.shape).transpose(1, 2) for states_NHE in flat)
        outputs.append(sdpa_attention_forward(module, q, k, v, None, **kwargs)[0].flatten(0, 1))
    return torch.cat(outputs).index_select(0, pieces.place).view(rows, tokens, heads, size), None


AttentionInterface.register(NAME, two_causal_attention)
