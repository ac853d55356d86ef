"""The model on real tensors, for every family: what reaches an embedding and an answer, and what must not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_prep.checkpoint import FAMILIES
from data_prep.samples import Side, Turn
from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from pipeline.batches.collate import Job

TURNS = (Turn("what colour is it?", "red."), Turn("how many?", "there are three yellow stars."))


@pytest.fixture(scope="module", params=FAMILIES)
def kit(request, kit_of):
    """Every test here runs for every family."""
    return kit_of(request.param)


@pytest.fixture(scope="module")
def model(kit):
    """The family's small model."""
    return kit.model


@pytest.fixture(scope="module")
def encoder(kit):
    """The family's encoder."""
    return kit.encoder


@pytest.fixture(scope="module")
def collator(kit):
    """The family's collator."""
    return kit.collator


@pytest.fixture(scope="module")
def sides(picture) -> list[Side]:
    """Text only, one image, image and text, several images of different sizes."""
    return [
        Side("a red circle is above the blue square."),
        Side(images=(picture(0),)),
        Side("find the picture that fits: three stars", (picture(1, 84, 56),)),
        Side("what changed?", (picture(2), picture(3, 112, 56), picture(4, 56, 84))),
        Side("one grey ring."),
    ]


@torch.no_grad()
def run(model, collator, rows):
    """Embeddings and answer losses of rows of jobs."""
    return model(collator(rows))


def test_what_follows_the_chorus_does_not_reach_the_embedding(model, collator, encoder, sides) -> None:
    for side in sides:
        alone = run(model, collator, [[Job(encoder.sequence(side))]])[0]
        assert alone.norm(dim=1).item() == pytest.approx(1, abs=1e-6)
        for turns in (TURNS[:1], TURNS, (Turn("what colour is it?", "blue, or green."),)):
            for z in (False, True):
                followed = run(model, collator, [[Job(encoder.sequence(side, turns), compressed=z)]])[0]
                assert (followed - alone).abs().max() <= 1e-6


def test_embeddings_tell_contexts_apart(model, collator, encoder, sides) -> None:
    """The control of every equality here: another context is another embedding."""
    embeddings = torch.cat([run(model, collator, [[Job(encoder.sequence(side))]])[0] for side in sides])
    distances = torch.cdist(embeddings, embeddings) + 9 * torch.eye(len(sides))
    assert distances.min() > 0.01


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 1, 2, 3, 4]],
        [[3, 0], [4, 1, 2]],
        [[0], [1], [2], [3], [4]],
        [[2, 3], [0], [1, 4]],
    ],
    ids=["one row", "packed", "padded", "mixed"],
)
def test_packed_equals_padded_equals_one_by_one(model, collator, encoder, sides, rows) -> None:
    turns = [TURNS, (), TURNS[1:], TURNS, TURNS[:1]]
    jobs = [Job(encoder.sequence(side, own), compressed=i % 2 == 0) for i, (side, own) in enumerate(zip(sides, turns, strict=True))]
    order = [i for row in rows for i in row]
    single = [run(model, collator, [[jobs[i]]]) for i in order]
    embeddings, losses = run(model, collator, [[jobs[i] for i in row] for row in rows])
    torch.testing.assert_close(embeddings, torch.cat([one for one, _ in single]), atol=1e-5, rtol=0)
    torch.testing.assert_close(losses, torch.cat([one for _, one in single]), atol=1e-5, rtol=1e-5)
    assert len(losses) == sum(int((job.sequence.roles == Role.ANSWER).sum()) for job in jobs)


def test_uncompressed_answer_loss_is_the_stock_models(model, collator, encoder, sides) -> None:
    sequence = encoder.sequence(sides[3], TURNS)
    batch = collator([[Job(sequence)]])
    with torch.no_grad():
        kinds = (batch.ids == encoder.image_id).long()
        images = dict(pixel_values=batch.pixels, image_grid_thw=batch.grids, mm_token_type_ids=kinds)
        logits = model.backbone(input_ids=batch.ids, **images).logits[0, :-1]
    answer = torch.from_numpy(sequence.roles[1:] == Role.ANSWER)
    words = logits[answer].index_fill(1, torch.tensor(encoder.chorus_ids), float("-inf"))  # chorus tokens are never said
    expected = F.cross_entropy(words, batch.ids[0, 1:][answer], reduction="none")
    torch.testing.assert_close(run(model, collator, [[Job(sequence)]])[1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("compressed", [True, False])
def test_context_reaches_answers_through_the_chorus_only(model, collator, encoder, picture, compressed: bool) -> None:
    """Exchange image and text while every layer's chorus states are held: with z = 1 no answer token notices."""
    sequence = encoder.sequence(Side("a red circle", (picture(5),)), TURNS)
    ids = sequence.ids.copy()
    text = np.flatnonzero(sequence.roles == Role.CONTEXT)[-4:]
    ids[text] = ids[text[::-1]]
    other = TokenSequence(ids, sequence.roles, encoder.sequence(Side(images=(picture(6),))).images)
    chorus = torch.from_numpy(sequence.roles == Role.CHORUS)
    held: list[torch.Tensor] = []

    def record(module, args, kwargs):
        held.append(args[0][:, chorus].clone())

    def hold(module, args, kwargs):
        states = args[0].clone()
        states[:, chorus] = held.pop(0)
        return (states, *args[1:]), kwargs

    losses = []
    for shown, hook in ((sequence, record), (other, hold), (other, None)):
        layers = model.backbone.model.language_model.layers
        handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers] if hook else []
        losses.append(run(model, collator, [[Job(shown, compressed)]])[1])
        for handle in handles:
            handle.remove()
    assert not held
    noticed = (losses[1] - losses[0]).abs().max().item()
    assert noticed <= 1e-6 if compressed else noticed > 1e-3
    assert (losses[2] - losses[0]).abs().max() > 1e-3, "through the chorus it must be noticed"


def test_text_embeds_the_same_beside_images(model, collator, encoder, sides) -> None:
    text, image = (Job(encoder.sequence(side)) for side in sides[:2])
    alone = run(model, collator, [[text]])[0][0]
    torch.testing.assert_close(run(model, collator, [[image, text]])[0][1], alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(run(model, collator, [[image], [text]])[0][1], alone, atol=1e-6, rtol=0)


def test_each_placeholder_gets_its_own_image(model, collator, encoder, picture) -> None:
    """Two sequences that differ in their images alone, in either order: embeddings follow the image."""
    jobs = [Job(encoder.sequence(Side("what is it?", (picture(i),)))) for i in (7, 8)]
    forward, backward = (run(model, collator, [order])[0] for order in (jobs, jobs[::-1]))
    torch.testing.assert_close(forward, backward.flip(0), atol=1e-5, rtol=0)
    assert (forward[0] - forward[1]).abs().max() > 1e-3


@pytest.mark.parametrize("blank", [True, False])
def test_every_parameter_gets_a_gradient(model, collator, encoder, sides, blank: bool) -> None:
    """A blank batch's is zero; without images, the vision tower's is zero. None would leave ZeRO's ranks waiting."""
    model.zero_grad()
    embeddings, losses = model(collator([] if blank else [[Job(encoder.sequence(sides[0], TURNS))]]))
    assert blank == (len(embeddings) == 0) == (len(losses) == 0)
    (embeddings[:, 0].sum() + losses.sum()).backward()
    moved = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        moved[name] = parameter.grad.abs().max().item() > 0
    model.zero_grad()
    assert not any(moved[name] for name in moved if blank or "visual" in name)
    assert blank or all(moved[name] for name in moved if "visual" not in name)


def test_packed_positions_are_the_models_own(model, collator, encoder, sides) -> None:
    jobs = [Job(encoder.sequence(side, TURNS)) for side in sides]
    batch = collator([jobs])
    images = 0
    for i, job in enumerate(jobs):
        ids = torch.from_numpy(job.sequence.ids.astype(np.int64))[None]
        grids = batch.grids[images : (images := images + len(job.sequence.images))]
        expected, _ = model.backbone.model.get_rope_index(
            ids, mm_token_type_ids=(ids == encoder.image_id).long(), image_grid_thw=grids if len(grids) else None
        )
        assert torch.equal(batch.positions[:, 0, batch.documents[0] == i], expected[:, 0])
    assert images == len(batch.grids)
