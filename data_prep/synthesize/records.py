"""A row and one turn about it -> a record of synthetic question-answer data (format: `data_prep.sources.synqa`)."""

from data_prep.sources import Part
from data_prep.sources.common import plain
from data_prep.sources.sharegpt import MARKER
from data_prep.synthesize.author import side_images, side_text
from data_prep.synthesize.filters import Candidate

CONTRAST = ("qry", "pos_text", "pos_image_path", "neg_text", "neg_image_path")
"""Columns of the MMEB row that make the record a pair as well."""


def candidate(row: dict, side: str, turn: dict) -> Candidate:
    """What the filters judge; the label is the row's positive text."""
    label = plain(row["pos_text"])
    return Candidate(" ".join(side_images(row, side)), turn["question"], turn.get("answer", ""), label, turn["finished"])


def record(part: Part, number: int, row: dict, side: str, k: int, turn: dict, writer: dict) -> dict:
    """One line of the output.

    Args:
        number: the row's number in its part.
        k: number of the prompt, so that ids stay what they are when another prompt's record is dropped.
        writer: {"generator", "temperature"}.
    """
    subset = part.source.rpartition("/")[2]
    text = side_text(row, side)
    images = side_images(row, side)
    asked = "\n".join(filter(None, (*[MARKER] * len(images), text, turn["question"].strip())))
    return {
        "id": f"mmeb-syn/{subset}/{part.first + number}/{k}",
        "source": "mmeb_synqa",
        "subset": subset,
        "split": part.split,
        "row": part.first + number,
        "side": side,
        "image": images[0] if len(images) == 1 else images,
        "embed_text": text,
        "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": turn["answer"].strip()}],
        "generator": writer["generator"],
        "gen": {"prompt_id": turn["prompt_id"], "temperature": writer["temperature"], "seed": turn["seed"]},
        "contrast": {name: row[name] for name in CONTRAST if name in row},
    }
