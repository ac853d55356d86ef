"""Two causal attentions against sdpa under the dense mask: the pieces by hand, the kernel on random layouts, the model of every family."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from data_prep.checkpoint import FAMILIES
from data_prep.samples import Side, Turn
from data_prep.schema import Role
from pipeline.batches.collate import Job
from pipeline.model.crem import Crem, load_backbone
from pipeline.model.mask import compression_mask
from pipeline.model.two_causal import cut, two_causal_attention

V, U, Q, A = Role.CONTEXT, Role.CHORUS, Role.PROMPT, Role.ANSWER
MODULE = SimpleNamespace(num_key_value_groups=2, is_causal=True)
"""What the kernel reads of an attention layer: four heads share two heads of keys and values."""


def tensors(rows: list[list[tuple[list[int], bool]]], padding: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Roles, documents and z of rows of (roles of a document, z)."""
    width = max(sum(len(roles) for roles, _ in row) for row in rows) + padding or 1
    roles = torch.zeros(len(rows), width, dtype=torch.uint8)
    documents = torch.full((len(rows), width), -1)
    compressed = torch.zeros(len(rows), width, dtype=torch.bool)
    for r, row in enumerate(rows):
        start = 0
        for number, (own, z) in enumerate(row):
            place = slice(start, start := start + len(own))
            roles[r, place], documents[r, place], compressed[r, place] = torch.tensor(own, dtype=torch.uint8), number, z
    return roles, documents, compressed


def test_pieces_of_nine_tokens() -> None:
    """A document of two of context, one of chorus, prompt and answer (z = 1); another of context and chorus; two of padding."""
    roles, documents, compressed = tensors([[([V, V, U, Q, A], True), ([V, U], False)]], padding=2)
    pieces = cut(roles, documents, compressed)
    # first piece, second piece, padding, the other document's only one; of two tokens, the last stands twice
    assert [call.tolist() for call in pieces.calls] == [[[0, 1, 2], [2, 3, 4], [7, 8, 8], [5, 6, 6]]]
    assert pieces.place.tolist() == [0, 1, 2, 4, 5, 9, 10, 6, 7]


def test_pieces_of_unlike_length_run_apart() -> None:
    """A document of seven tokens and one of two: no place is padding."""
    pieces = cut(*tensors([[([V] * 6 + [U], False), ([V, U], False)]], padding=0))
    assert [call.tolist() for call in pieces.calls] == [[[0, 1, 2, 3, 4, 5, 6]], [[7, 8]]]
    assert pieces.place.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]


standing = st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)).filter(any)
"""Numbers of context, chorus, prompt and answer tokens, in that order, as data has them."""
usual = standing.map(lambda counts: [role for role, count in zip((V, U, Q, A), counts, strict=True) for _ in range(count)])
any_order = st.lists(st.sampled_from(list(Role)), min_size=1, max_size=12)
rows_of_documents = st.lists(st.lists(st.tuples(usual | any_order, st.booleans()), max_size=4), min_size=1, max_size=3)


def attend(states: list[torch.Tensor], weight: torch.Tensor, **how) -> list[torch.Tensor]:
    """Output, and gradients of a random linear function of it with respect to query, key and value."""
    states = [state.clone().requires_grad_() for state in states]
    kernel = two_causal_attention if "pieces" in how else sdpa_attention_forward
    out, _ = kernel(MODULE, *states, how.pop("attention_mask", None), **how)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), states)]


def worst(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


@given(rows_of_documents, st.integers(0, 3), st.integers(0, 2**31))
@settings(max_examples=100)
def test_outputs_and_gradients_are_those_under_the_dense_mask(rows: list, padding: int, seed: int) -> None:
    rule = tensors(rows, padding)
    mask = compression_mask(*rule)
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(len(rows), heads, mask.shape[-1], 8, generator=generator) for heads in (4, 2, 2)]
    weight = torch.randn(len(rows), mask.shape[-1], 4, 8, generator=generator)
    expected = attend(states, weight, attention_mask=mask, scaling=0.5)
    assert worst(attend(states, weight, pieces=cut(*rule), scaling=0.5), expected) <= 1e-5
    # the control: where z or the borders of documents change the mask, leaving them out is seen
    roles, documents, compressed = rule
    for wrong in ((roles, documents, compressed & False), (roles, torch.where(documents < 0, -1, 0), compressed)):
        if not compression_mask(*wrong).equal(mask):
            assert worst(attend(states, weight, pieces=cut(*wrong), scaling=0.5), expected) > 1e-3


def test_without_pieces_it_is_sdpa_under_the_mask_given() -> None:
    """Decoding: two new tokens over five cached ones, the first of those hidden."""
    states = [torch.randn(1, heads, tokens, 8) for heads, tokens in ((4, 2), (2, 7), (2, 7))]
    mask = torch.ones(1, 1, 2, 7, dtype=torch.bool).tril(5)
    mask[..., 0] = False
    out, _ = two_causal_attention(MODULE, *states, mask, scaling=0.5)
    assert out.equal(sdpa_attention_forward(MODULE, *states, mask, scaling=0.5)[0])
    assert not out.equal(sdpa_attention_forward(MODULE, *states, None, scaling=0.5)[0])


def test_refuses_pieces_together_with_earlier_keys_or_a_mask() -> None:
    pieces = cut(*tensors([[([V, U], False)]], 0))
    states = [torch.randn(1, heads, 2, 8) for heads in (4, 2, 2)]
    with pytest.raises(ValueError, match="found 7 keys for 2 queries and no mask; expected as many keys as queries"):
        two_causal_attention(MODULE, states[0], *[torch.randn(1, 2, 7, 8)] * 2, None, pieces=pieces)
    with pytest.raises(ValueError, match="found 2 keys for 2 queries and a mask; expected"):
        two_causal_attention(MODULE, *states, torch.ones(1, 1, 2, 2, dtype=torch.bool), pieces=pieces)


@pytest.fixture(scope="module")
def jobs(kit_of, picture):
    """Jobs of a family: images and texts, with and without answers, z = 0 and 1."""
    turns = (Turn("what colour is it?", "red."), Turn("how many?", "there are three yellow stars."))

    def make(family: str) -> list[Job]:
        encoder = kit_of(family).encoder
        sides = [Side("a red circle", (picture(1),)), Side("one grey ring."), Side("what changed?", (picture(2), picture(3, 112, 56)))]
        own = [encoder.sequence(side, turns[: i % 3]) for i, side in enumerate(sides * 3)]
        return [Job(sequence, compressed=i % 4 > 1) for i, sequence in enumerate(own)]

    return make


def outputs_and_gradients(model: Crem, batch) -> dict[str, torch.Tensor]:
    """Embeddings, answer losses and the gradient of a function of both with respect to every parameter."""
    model.zero_grad()
    embeddings, losses = model(batch)
    weight = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    ((embeddings * weight).sum() + losses.sum()).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return {"embeddings": embeddings.detach(), "losses": losses.detach(), **gradients}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recompute", [False, True], ids=["", "gradient checkpointing"])
def test_the_model_gives_the_same_under_both(kit_of, jobs, family: str, recompute: bool) -> None:
    kit, own = kit_of(family), jobs(family)
    batch = kit.collator([own[:4], own[4:5], own[5:]])
    assert batch.compressed.any() and not batch.compressed.all() and (batch.documents < 0).any()
    pieces = load_backbone(kit.checkpoint, torch.float32, "two_causal")
    assert pieces.model.language_model.config._attn_implementation == "two_causal"
    assert pieces.model.visual.config._attn_implementation == "sdpa"
    pieces.load_state_dict(kit.model.backbone.state_dict())
    other = Crem(pieces).train()  # transformers recomputes in training alone; nothing here drops out
    if recompute:
        pieces.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    expected, found = outputs_and_gradients(kit.model, batch), outputs_and_gradients(other, batch)
    kit.model.zero_grad()
    assert found.keys() == expected.keys()
    largest = max(float(values.abs().max()) for name, values in expected.items() if name not in ("embeddings", "losses"))
    for name, values in expected.items():
        scale = 1.0 if name in ("embeddings", "losses") else largest
        assert float((found[name] - values).abs().max()) <= 1e-5 * scale, name
    # the control: another z is seen
    changed = kit.collator([[Job(job.sequence, not job.compressed) for job in part] for part in (own[:4], own[4:5], own[5:])])
    with torch.no_grad():
        assert float((other(changed)[1] - found["losses"]).abs().max()) > 1e-3


def test_a_blank_batch_reaches_every_parameter(kit_of) -> None:
    """A parameter that a rank's backward pass leaves out would leave the others waiting (ZeRO)."""
    kit = kit_of("qwen2_vl")
    model = Crem(load_backbone(kit.checkpoint, torch.float32, "two_causal"))
    embeddings, losses = model(kit.collator([]))
    (embeddings.sum() + losses.sum()).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_no_place_for_a_mask() -> None:
    """One row of 4,096 tokens in 16 documents: places grow with the tokens, where the dense mask has 16.8 million."""
    lengths = np.random.default_rng(0).multinomial(4096 - 16 * 8, [1 / 16] * 16)
    rows = [[([V] * length + [U] * 4 + [Q, Q, A, A], True) for length in lengths]]
    places = sum(call.numel() for call in cut(*tensors(rows, 0)).calls)
    assert 4096 + 16 * 4 <= places <= 1.5 * (4096 + 16 * 4)
