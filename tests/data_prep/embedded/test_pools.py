import pytest

from data_prep.embedded.pairs import TASKS
from data_prep.embedded.pools import trials
from data_prep.embedded.scenes import Part, held_out

BY_NAME = {task.name: task for task in TASKS}
SETS = [(task.name, part) for task in TASKS for part in ((Part.IND, Part.OOD) if task.ood else (Part.IND,))]
POOLS = {"ShapesI2T": 500, "ShapesT2I": 500, "ShapesGlyph": 23, "ShapesVQA": 53, "ShapesGround": 30}


@pytest.mark.parametrize(("name", "part"), SETS)
def test_pools(name, part):
    found = list(trials(BY_NAME[name], part, 12, seed=0))
    size = {Part.IND: 41, Part.OOD: 48}[part] if name == "ShapesCls" else POOLS.get(name, 100)

    assert len(found) == 12
    for trial in found:
        meanings = [half.meaning for half in trial.candidates]
        assert len(meanings) == len(set(meanings)) == size
    assert len({found[i].candidates[1:3] for i in range(12)}) == 12  # shuffled for each query on its own


def test_the_other_thing_of_the_picture_is_among_the_crops():
    positions = set()
    for trial in trials(BY_NAME["ShapesGround"], Part.IND, 12, seed=0):
        looks = [half.picture.look for half in trial.candidates]
        assert trial.query.picture.look == looks[0]
        positions.add(looks.index(looks[0], 1))
    assert len(positions) > 6  # and its position gives nothing away


def test_out_of_distribution_a_held_out_thing_is_asked_for():
    for name in ("ShapesGround", "ShapesCls"):
        for trial in trials(BY_NAME[name], Part.OOD, 12, seed=0):
            assert held_out(*trial.candidates[0].meaning.split(" ", 1))


def test_queries_share_their_pictures():
    shown = {half.picture for trial in trials(BY_NAME["ShapesT2I"], Part.IND, 30, seed=0) for half in trial.candidates}

    assert len(shown) <= 505
