"""How each family's image features reach its language model, and that they do. (Equality with the stock model: `test_crem`.)"""

import pytest
import torch

from data_prep.checkpoint import FAMILIES
from data_prep.samples import Side
from pipeline.batches.collate import Job
from pipeline.model.family import FEATURES, language_inputs
from pipeline.model.pooling import pool_chorus


def test_every_supported_family_has_an_entry() -> None:
    assert tuple(FEATURES) == FAMILIES


@pytest.fixture(scope="module", params=FAMILIES)
def kit(request, kit_of):
    """Every test here runs for every family."""
    return kit_of(request.param)


def inputs(kit, *sides: Side):
    """The batch of some sides and what the language model gets of it."""
    batch = kit.collator([[Job(kit.encoder.sequence(side)) for side in sides]])
    embeds = kit.model.backbone.model.get_input_embeddings()(batch.ids)
    return batch, embeds, language_inputs(kit.model.backbone, embeds, batch)


def test_features_stand_at_image_tokens_and_nowhere_else(kit, picture) -> None:
    batch, embeds, given = inputs(kit, Side("look", (picture(1), picture(2, 112, 56))), Side("text"), Side(images=(picture(3),)))
    shown = batch.ids == kit.encoder.image_id
    assert int(shown.sum()) == int(batch.image_tokens) == 4 + 8 + 4
    changed = (given["inputs_embeds"] != embeds).any(-1)
    assert torch.equal(changed, shown)
    features = []
    for seed, width in ((1, 56), (2, 112), (3, 56)):
        one, _, alone = inputs(kit, Side(images=(picture(seed, width),)))
        features.append(alone["inputs_embeds"][one.ids == kit.encoder.image_id])
    torch.testing.assert_close(given["inputs_embeds"][shown], torch.cat(features), atol=1e-5, rtol=1e-5)


def test_deeper_features_come_with_qwen3_vl_alone(kit, picture) -> None:
    batch, embeds, given = inputs(kit, Side("look", (picture(1), picture(2, 112, 56))))
    if kit.family != "qwen3_vl":
        assert set(given) == {"inputs_embeds"}
        return
    assert set(given) == {"inputs_embeds", "visual_pos_masks", "deepstack_visual_embeds"}
    assert torch.equal(given["visual_pos_masks"], batch.ids == kit.encoder.image_id)
    first, second = given["deepstack_visual_embeds"]
    assert first.shape == second.shape == (12, embeds.shape[-1])
    assert not torch.allclose(first, second)
    # each level reaches the embedding, by its own layer
    language_model = kit.model.backbone.model.language_model
    embeddings = []
    for levels in ([first, second], [second, first], [first], []):
        with torch.no_grad():
            hidden = language_model(**given | {"deepstack_visual_embeds": levels}, position_ids=batch.positions).last_hidden_state
        embeddings.append(pool_chorus(hidden.flatten(0, 1), batch.chorus_index))
    assert torch.pdist(torch.cat(embeddings)).min() > 1e-3


def test_without_images_every_vision_parameter_is_in_the_graph_and_changes_nothing(kit) -> None:
    batch, embeds, given = inputs(kit, Side("only text"))
    assert int(batch.image_tokens) == 0 and len(batch.grids) == 1  # the blank image
    assert torch.equal(given["inputs_embeds"], embeds)
    vision = dict(kit.model.backbone.model.visual.named_parameters())
    grads = torch.autograd.grad(given["inputs_embeds"].sum(), list(vision.values()), allow_unused=True)
    for name, grad in zip(vision, grads, strict=True):
        assert grad is not None and not grad.any(), name
    assert any("deepstack_merger_list.1" in name for name in vision) == (kit.family == "qwen3_vl")
