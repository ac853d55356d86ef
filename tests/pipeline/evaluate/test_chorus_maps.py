"""Attention of the chorus: the weights are the model's own, by two other ways to the same numbers; the figures by literal cases."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_prep.checkpoint import FAMILIES
from data_prep.samples import DataError, Side
from data_prep.schema import Role
from pipeline.batches.collate import Job
from pipeline.evaluate.chorus_maps import chorus_attention, entropy, image_maps, overlap, read_chorus
from pipeline.model.crem import load_backbone
from pipeline.model.family import language_inputs


@pytest.fixture(params=FAMILIES)
def kit(request, kit_of):
    return kit_of(request.param)


@pytest.fixture
def side(picture) -> Side:
    """Two images of different shapes, and text."""
    return Side("what changed?", (picture(1, 112, 56), picture(2, 56, 84)))


def test_weights_and_states_are_those_of_the_whole_forward(kit, side) -> None:
    """Against the sdpa states, and against one eager forward of the whole prefix by a second copy of the model."""
    batch = kit.collator([[Job(kit.encoder.sequence(side))]])
    states_KD, weights_LHKT = read_chorus(kit.model, batch)
    with torch.no_grad():
        sdpa_KD = kit.model.hidden(batch)[0, -4:]
        eager = load_backbone(kit.checkpoint, torch.float32, "eager").eval()
        eager.load_state_dict(kit.model.backbone.state_dict())
        embeds_RTD = eager.get_input_embeddings()(batch.ids)
        whole = eager.model.language_model(
            **language_inputs(eager, embeds_RTD, batch), position_ids=batch.positions, output_attentions=True, use_cache=False
        )
    assert (states_KD - sdpa_KD).abs().max() <= 1e-5
    assert (states_KD - whole.last_hidden_state[0, -4:]).abs().max() <= 1e-5
    whole_LHKT = torch.stack(whole.attentions)[:, 0, :, -4:]
    assert weights_LHKT.shape == whole_LHKT.shape and (weights_LHKT - whole_LHKT).abs().max() <= 1e-5
    assert weights_LHKT.std(dim=3).min() > 1e-3  # the control: they are not all alike
    assert kit.model.backbone.model.language_model.config._attn_implementation == "sdpa"


def test_first_layer_is_softmax_of_q_times_k(kit_of, side) -> None:
    kit = kit_of("qwen2_vl")
    batch = kit.collator([[Job(kit.encoder.sequence(side))]])
    language_model = kit.model.backbone.model.language_model
    layer, size = language_model.layers[0], 32
    with torch.no_grad():
        embeds_RTD = kit.model.backbone.get_input_embeddings()(batch.ids)
        inputs = language_inputs(kit.model.backbone, embeds_RTD, batch)["inputs_embeds"]
        x_TD = layer.input_layernorm(inputs)[0]
        cos, sin = (part[0] for part in language_model.rotary_emb(inputs, batch.positions))
        q_HTE, k_HTE = (
            turn(project(x_TD).view(len(x_TD), heads, size).transpose(0, 1), cos, sin)
            for project, heads in ((layer.self_attn.q_proj, 2), (layer.self_attn.k_proj, 1))
        )
        scores_HTT = q_HTE @ k_HTE.transpose(1, 2) / math.sqrt(size)
        hidden_TT = torch.ones_like(scores_HTT[0], dtype=torch.bool).triu(1)
        expected_KT = scores_HTT.masked_fill(hidden_TT, -math.inf).softmax(dim=-1).mean(dim=0)[-4:]
    assert (chorus_attention(kit.model, kit.collator, kit.encoder.sequence(side))[0] - expected_KT).abs().max() <= 1e-5


def turn(x_HTE: torch.Tensor, cos_TE: torch.Tensor, sin_TE: torch.Tensor) -> torch.Tensor:
    """Rotary positions: each pair (e, e + E / 2) turned by its angle."""
    low, high = x_HTE.chunk(2, dim=-1)
    return x_HTE * cos_TE + torch.cat([-high, low], dim=-1) * sin_TE


def test_rows_sum_to_one_and_are_causal(kit, side) -> None:
    sequence = kit.encoder.sequence(side)
    rows_LKT = chorus_attention(kit.model, kit.collator, sequence)
    assert rows_LKT.dtype == torch.float32 and rows_LKT.shape == (len(kit.model.backbone.model.language_model.layers), 4, len(sequence))
    assert (rows_LKT.sum(dim=2) - 1).abs().max() <= 1e-5
    among_LKK = rows_LKT[:, :, sequence.roles == Role.CHORUS]
    assert (among_LKK.triu(1) == 0).all()
    assert (among_LKK.diagonal(dim1=1, dim2=2) > 0).all() and (rows_LKT[:, :, :-4].sum(dim=2) > 0).all()


def test_neither_later_chorus_tokens_nor_a_question_change_a_row(kit, side) -> None:
    rows_LKT = chorus_attention(kit.model, kit.collator, kit.encoder.sequence(side))
    short = chorus_attention(kit.model, kit.collator, kit.encoder.shortened(2).sequence(side))
    assert (short - rows_LKT[:, :2, :-2]).abs().max() <= 1e-6
    asked = chorus_attention(kit.model, kit.collator, kit.encoder.sequence(side, open_question="how many?"))
    assert torch.equal(asked, rows_LKT)


def test_a_broken_checkpoint_is_said_to_be_one(kit_of, side) -> None:
    kit = kit_of("qwen2_vl")
    broken = copy.deepcopy(kit.model)
    with torch.no_grad():
        broken.backbone.model.language_model.layers[1].self_attn.q_proj.weight[0] = math.nan
    with pytest.raises(DataError, match="not finite; expected numbers: the checkpoint is broken"):
        chorus_attention(broken, kit.collator, kit.encoder.sequence(side))


def test_maps_are_the_images_tokens_row_by_row(kit, side) -> None:
    """Numbered tokens come back on each image's grid, and the model's own positions number the grid the same way."""
    sequence = kit.encoder.sequence(side)
    places = np.flatnonzero(sequence.ids == kit.encoder.image_id)
    shapes = [(image.height // kit.encoder.factor, image.width // kit.encoder.factor) for image in sequence.images]
    assert shapes == [(2, 4), (3, 2)]
    rows_KT = torch.zeros(4, len(sequence))
    rows_KT[:, places] = torch.arange(1.0, len(places) + 1)
    first, second = image_maps(rows_KT / 1000, sequence, kit.encoder)
    assert torch.allclose(first.maps_KYX[3] * 36, torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    assert torch.allclose(second.maps_KYX[0] * 69, torch.tensor([[9.0, 10], [11, 12], [13, 14]]))
    assert first.mass_K.tolist() == pytest.approx([0.036] * 4) and second.mass_K.tolist() == pytest.approx([0.069] * 4)
    visible = [len(sequence) - 3, len(sequence) - 2, len(sequence) - 1, len(sequence)]
    assert first.even_mass_K.tolist() == pytest.approx([8 / n for n in visible])
    at_2I = kit.collator.positions(sequence)[1:, places[:8]]
    assert (at_2I - at_2I[:, :1]).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 3, 0, 1, 2, 3]]


def test_an_image_nobody_looks_at_has_empty_maps(kit_of, side) -> None:
    kit = kit_of("qwen2_vl")
    sequence = kit.encoder.sequence(side)
    maps = image_maps(torch.zeros(4, len(sequence)), sequence, kit.encoder)[0]
    assert maps.maps_KYX.abs().max() == 0
    assert maps.figures() == {"image_mass": 0, "entropy": 0, "overlap": 0, "even_mass": pytest.approx(float(maps.even_mass_K.mean()))}


def test_entropy() -> None:
    maps_KYX = torch.tensor([[[1.0, 0], [0, 0]], [[0.5, 0], [0, 0.5]], [[0.25, 0.25], [0.25, 0.25]], [[0.5, 0.25], [0.125, 0.125]]])
    assert entropy(maps_KYX).tolist() == pytest.approx([0, 0.5, 1, 0.875])
    assert entropy(torch.ones(2, 1, 1)).tolist() == [1, 1]


def test_overlap() -> None:
    one, other, both = [[1.0, 0]], [[0, 1.0]], [[0.5, 0.5]]
    assert overlap(torch.tensor([one, other])) == 0
    assert overlap(torch.tensor([both, both, both])) == pytest.approx(1)
    assert overlap(torch.tensor([one, other, both])) == pytest.approx((0 + 2 * math.sqrt(0.5)) / 3)
    assert overlap(torch.tensor([one])) is None


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 20.0]))
def test_figures_are_shares_and_blind_to_order(count, height, width, seed, sharpness) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps_KI = (sharpness * torch.randn(count, height * width, generator=generator)).softmax(dim=1)
    maps_KYX = maps_KI.view(count, height, width)
    assert (entropy(maps_KYX) >= 0).all() and (entropy(maps_KYX) <= 1 + 1e-6).all()
    shuffled = maps_KI[:, torch.randperm(height * width, generator=generator)].view(count, height, width)
    assert entropy(shuffled).tolist() == pytest.approx(entropy(maps_KYX).tolist(), abs=1e-6)
    if count > 1:
        assert 0 <= overlap(maps_KYX) <= 1 + 1e-6
        assert overlap(shuffled.flip(0)) == pytest.approx(overlap(maps_KYX), abs=1e-6)
