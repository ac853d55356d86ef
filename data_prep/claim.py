"""A folder of shards belongs to one set of data and settings: what they are, and that a folder's are these.

Shards that are there already are taken as they are, so whatever could make other ones must be told apart here: files by their bytes,
pictures by the folder that their paths start from. Pictures themselves are not read: whoever alters those names another folder.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_prep.samples import DataError
from data_prep.shards import file_digest, write_json
from data_prep.sources import Part

SETTINGS = "settings.json"


def data_facts(parts: Sequence[Part]) -> dict[str, dict]:
    """By source: rows, bytes, split, digests of its files in order, and where its image paths start, seen from its files.

    The same data in another place give the same.
    """
    digests = {path: file_digest(path) for path in dict.fromkeys(part.path for part in parts)}
    facts: dict[str, dict] = {}
    for part in parts:
        own = facts.setdefault(part.source, {"rows": 0, "bytes": 0, "split": part.split, "sha256": [], "images": []})
        own["rows"] += part.rows
        own["bytes"] += part.path.stat().st_size
        own["sha256"].append(digests[part.path])
        start = os.path.relpath(part.root, part.path.parent)
        own["images"] += [start] if start not in own["images"] else []
    return facts


def claim(out: Path, fingerprint: dict) -> None:
    """Bind the folder to these data and settings, so that shards of two kinds never meet in one folder.

    Raises:
        DataError: it is bound to others (says which differ), its settings cannot be read, or it holds shards of unknown origin.
    """
    path = out / SETTINGS
    if path.is_file():
        if differ := _differing(_read(path), fingerprint):
            raise DataError(
                f"{out}: found shards made from other data, another tokenizer or other settings, see {path} (different: "
                f"{', '.join(differ)}); expected the same. Name another --out, or remove this folder"
            )
        return
    stray = next(iter(out.glob("*.arrow")), None)
    if stray:
        raise DataError(f"{out}: found {stray.name} but no {SETTINGS}; expected an empty folder or one of this job. Name another --out.")
    write_json(path, fingerprint)


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path}: found no readable settings; expected what the job wrote there. Name another --out, or remove this folder")
    return found


def _differing(found: dict, expected: dict) -> list[str]:
    """Names of the entries that differ; those of the encoder and of the data one level down."""
    one, other = _named(found), _named(expected)
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key) and key != "encoder_digest")


def _named(entries: dict) -> dict:
    return dict(pair for key, value in entries.items() for pair in _pairs(key, value))


def _pairs(key: str, value: object) -> Iterable[tuple[str, object]]:
    return ((f"{key}.{name}", entry) for name, entry in value.items()) if isinstance(value, dict) else [(key, value)]
