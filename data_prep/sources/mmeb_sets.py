"""The sets of MMEB by name: the 36 image tasks that are scored, and those of MMEB-V2 that are not yet.

Source: VLM2Vec, table 1 (36 sets, meta-tasks, IND and OOD); VLM2Vec-V2's `experiments/public/eval/{image,video,visdoc}.yaml`, whose image
tasks are the same 36 sets.
"""

from data_prep.samples import DataError

METAS = ("classification", "vqa", "retrieval", "grounding")
SPLITS = ("IND", "OOD")

_MMEB = {
    ("classification", "IND"): "ImageNet-1K N24News HatefulMemes VOC2007 SUN397",
    ("classification", "OOD"): "Place365 ImageNet-A ImageNet-R ObjectNet Country211",
    ("vqa", "IND"): "OK-VQA A-OKVQA DocVQA InfographicsVQA ChartQA Visual7W",
    ("vqa", "OOD"): "ScienceQA VizWiz GQA TextVQA",
    ("retrieval", "IND"): "VisDial CIRR VisualNews_t2i VisualNews_i2t MSCOCO_t2i MSCOCO_i2t NIGHTS WebQA",
    ("retrieval", "OOD"): "OVEN FashionIQ EDIS Wiki-SS-NQ",
    ("grounding", "IND"): "MSCOCO",
    ("grounding", "OOD"): "RefCOCO RefCOCO-Matching Visual7W-Pointing",
}
_VIDEO = (
    "SmthSmthV2 HMDB51 UCF101 K700 Breakfast MSR-VTT MSVD DiDeMo YouCook2 VATEX QVHighlight Charades-STA MomentSeeker Video-MME NExTQA "
    "EgoSchema MVBench ActivityNetQA video-tasks"
)
_DOCUMENT = "ViDoRe VisRAG ViDoSeek MMLongBench visdoc-tasks"


def _key(name: str) -> str:
    # ImageNet_1K in training is ImageNet-1K here.
    return name.replace("_", "-").lower()


TASKS = {_key(name): task for task, names in _MMEB.items() for name in names.split()}
"""The 36 sets of MMEB: name, lower case with hyphens -> (meta-task, IND or OOD)."""
_NOT_YET = {_key(name): "video" for name in _VIDEO.split()}
_DOCUMENT_KEYS = tuple(_key(name) for name in _DOCUMENT.split())


def task_of(name: str) -> tuple[str, str] | None:
    """(meta-task, IND or OOD) of one of the 36 sets, however its folder spells hyphens and case; None for any other name."""
    return TASKS.get(_key(name))


def refuse_not_yet(root: object, name: str) -> None:
    """Refuse a video or document task of MMEB-V2, by the name of its folder (or of the folder that holds all of them).

    Raises:
        DataError: it is one.
    """
    key = _key(name)
    kind = "document" if key.startswith(_DOCUMENT_KEYS) else _NOT_YET.get(key)
    if kind:
        raise DataError(
            f"{root}: found {name}, a {kind} task of MMEB-V2; expected image tasks: video and document tasks are not scored yet, and a "
            "result without them would look like one with them. Name a folder that holds the 36 image sets alone (images elsewhere: "
            "--image-root)"
        )
