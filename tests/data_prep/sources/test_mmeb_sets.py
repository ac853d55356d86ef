"""The 36 sets of MMEB by name, and the names of MMEB-V2 that are refused."""

from collections import Counter

import pytest

from data_prep.samples import DataError
from data_prep.sources.mmeb_sets import TASKS, refuse_not_yet, task_of


def test_the_36_sets():
    assert len(TASKS) == 36
    assert Counter(TASKS.values()) == {
        ("classification", "IND"): 5,
        ("classification", "OOD"): 5,
        ("vqa", "IND"): 6,
        ("vqa", "OOD"): 4,
        ("retrieval", "IND"): 8,
        ("retrieval", "OOD"): 4,
        ("grounding", "IND"): 1,
        ("grounding", "OOD"): 3,
    }


EACH = {
    "CLS IND": "ImageNet-1K N24News HatefulMemes VOC2007 SUN397",
    "CLS OOD": "Place365 ImageNet-A ImageNet-R ObjectNet Country211",
    "VQA IND": "OK-VQA A-OKVQA DocVQA InfographicsVQA ChartQA Visual7W",
    "VQA OOD": "ScienceQA VizWiz GQA TextVQA",
    "RET IND": "VisDial CIRR VisualNews_t2i VisualNews_i2t MSCOCO_t2i MSCOCO_i2t NIGHTS WebQA",
    "RET OOD": "OVEN FashionIQ EDIS Wiki-SS-NQ",
    "GD IND": "MSCOCO",
    "GD OOD": "RefCOCO RefCOCO-Matching Visual7W-Pointing",
}
META = {"CLS": "classification", "VQA": "vqa", "RET": "retrieval", "GD": "grounding"}


@pytest.mark.parametrize("group", EACH)
def test_every_set_has_its_task_and_is_not_refused(group):
    meta, split = group.split()
    for name in EACH[group].split():
        assert task_of(name) == (META[meta], split), name
        refuse_not_yet("root", name)


@pytest.mark.parametrize("name", ["MyOwn", "MSCOCO_t2t", "images"])
def test_other_names_are_nobodys_and_welcome(name):
    assert task_of(name) is None
    refuse_not_yet("root", name)


VIDEO = (
    "SmthSmthV2 HMDB51 UCF101 K700 Breakfast MSR-VTT MSVD DiDeMo YouCook2 VATEX QVHighlight Charades-STA MomentSeeker Video-MME NExTQA "
    "EgoSchema MVBench ActivityNetQA"
)


def test_every_video_task_is_refused():
    assert len(VIDEO.split()) == 18
    for name in VIDEO.split():
        with pytest.raises(DataError, match="a video task of MMEB-V2"):
            refuse_not_yet("root", name)
