"""Units: every item once, cut by the data and settings alone; a key changes with what its bytes depend on, and with nothing else."""

import random
from dataclasses import replace

import pytest

from data_prep.encode import EncodeSettings
from data_prep.samples import DataError, ImageRef, Side
from pipeline.evaluate import units
from pipeline.evaluate.units import Item, cut, plan


def test_a_cut_by_hand() -> None:
    assert cut([5, 3, 9, 3, 1], 10) == [[2], [0, 1], [3, 4]]
    assert cut([5, 3, 9, 3, 1], 100, most=2) == [[2, 0], [1, 3], [4]]
    assert cut([500, 2], 10) == [[0], [1]], "what is longer than the budget is alone"
    assert cut([], 10) == []


def test_fifty_random_splits_hold_every_item_once() -> None:
    """Whatever the lengths, however units are dealt out, and whatever was done before."""
    rng = random.Random(0)
    for _ in range(50):
        lengths = [rng.choice((1, 7, 40, 300, 5000)) + rng.randrange(30) for _ in range(rng.randrange(1, 400))]
        budget, most = rng.choice((1, 600, 16384)), rng.choice((None, 1, 32))
        runs = cut(lengths, budget, most)
        assert sorted(i for run in runs for i in run) == list(range(len(lengths)))
        assert all(len(run) == 1 or len(run) * max(lengths[i] for i in run) <= budget for run in runs)
        assert all(len(run) <= (most or len(run)) for run in runs)
        done = rng.sample(runs, rng.randrange(len(runs) + 1))
        missing = [run for run in runs if run not in done]
        batch, workers = rng.randrange(1, 9), rng.choice((1, 2, 4))
        batches = [missing[start : start + batch] for start in range(0, len(missing), batch)]
        dealt = [i for w in range(workers) for batch_ in batches[w::workers] for run in batch_ for i in run]
        assert sorted(dealt + [i for run in done for i in run]) == list(range(len(lengths)))


@pytest.fixture
def items(picture) -> list[Item]:
    """Four pictures of one size with a text each, then two texts, the first of them twice."""
    shown = [Item(Side(f"picture {i}", (picture(i),))) for i in range(4)]
    return [*shown, Item(Side("a ring")), Item(Side("a star")), Item(Side("a ring"))]


@pytest.fixture
def keys(encoder, monkeypatch):
    """Plans items, two pictures to a unit; {digest: key of its unit}."""
    monkeypatch.setattr(units, "EMBED_TOKENS", 70)

    def keys(items, encoder=encoder, mode="embed", limit=0, identity=None, name="a set") -> dict[str, str]:
        task = plan(name, mode, items, encoder, limit, identity or {})
        return {digest: unit.key for unit in task.units for digest in unit.digests}

    return keys


def test_equal_items_are_computed_once(items, encoder, monkeypatch) -> None:
    monkeypatch.setattr(units, "EMBED_TOKENS", 70)
    task = plan("a set", "embed", items, encoder, 0, {})
    assert [len(unit.items) for unit in task.units] == [2, 2, 2]
    assert [task.units[unit].items[place] for unit, place in task.places] == items
    assert task.places[4] == task.places[6] != task.places[5]
    assert [unit.tokens for unit in task.units] == [sum(len(encoder.sequence(i.side)) for i in unit.items) for unit in task.units]


def test_one_image_changes_one_key(items, keys, picture) -> None:
    """And neither its name nor the set's counts."""
    before = keys(items)
    renamed = [replace(item, side=replace(item.side, images=tuple(replace(i, name="other") for i in item.side.images))) for item in items]
    assert keys(renamed, name="another set") == before
    changed = list(items)
    changed[1] = Item(replace(items[1].side, images=(picture(99),)))
    after = keys(changed)
    assert len(set(before.values()) - set(after.values())) == len(set(after.values()) - set(before.values())) == 1
    (old,) = before.keys() - after.keys()
    assert [key for digest, key in before.items() if digest in after and after[digest] != key] == [before[old]], "its neighbour's"


@pytest.mark.parametrize(
    "other",
    [
        lambda encoder: dict(encoder=encoder.shortened(2)),
        lambda encoder: dict(encoder=encoder.with_settings(EncodeSettings(max_pixels=28 * 28 * 9))),
        lambda encoder: dict(encoder=encoder.with_settings(EncodeSettings(min_pixels=28 * 28 * 5))),
        lambda encoder: dict(identity={"checkpoint": "other"}),
        lambda encoder: dict(mode="native"),
        lambda encoder: dict(limit=5),
    ],
    ids=["k", "max_pixels", "min_pixels", "checkpoint", "mode", "limit"],
)
def test_every_key_changes_with_a_setting(items, keys, encoder, other) -> None:
    assert not set(keys(items).values()) & set(keys(items, **other(encoder)).values())


def test_a_question_changes_its_key_alone(items, keys, monkeypatch) -> None:
    monkeypatch.setattr(units, "ANSWERS", 1)
    asked = [replace(item, question="how many?") for item in items]
    before = keys(asked, mode="native")
    asked[0] = replace(asked[0], question="how much?")
    after = keys(asked, mode="native")
    assert len(before.items() - after.items()) == len(after.items() - before.items()) == 1


def test_what_cannot_be_encoded_is_named_before_any_work(encoder, picture) -> None:
    for ref, what in ((ImageRef("torn.png", data=b"no image"), "format"), (ImageRef("gone.png"), "missing")):
        with pytest.raises(DataError, match=f"evaluation side {ref.name}: {what}.*Scores need every row"):
            plan("a set", "embed", [Item(Side("", (ref,)))], encoder, 0, {})
    short = encoder.with_settings(EncodeSettings(max_tokens=20))
    with pytest.raises(DataError, match=r"evaluation side noise-0-56x56.png: too_long: .* expected at most 20"):
        plan("a set", "embed", [Item(Side("", (picture(0),)))], short, 0, {})
