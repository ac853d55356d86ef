"""Every corpus as one list of `Part`s, each readable in slices of `RawSample`s.

A family is a module with `LOOKS_FOR` (what it recognises, for people), `discover(root, image_root, split)` and
`read(part, start, stop)`, entered in `FAMILIES`: adding a source is that one file and one name here. `mmeb_eval` and
`benchmarks` read what is evaluated, never what is trained on. Invariant: parts and rows come in an order that depends
on file names and contents only, and no two rows share an id.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.samples import DataError, RawSample, Rejected
from data_prep.sources import conversations, mmeb_train, synqa
from data_prep.sources.common import Part, visible

__all__ = ["FAMILIES", "Part", "discover", "read"]

FAMILIES = (mmeb_train, conversations, synqa)
_READERS = {family.__name__.rpartition(".")[2]: family for family in FAMILIES}

NOT_TRAINING = {"mmeb-eval", "benchmarks", "images", "images_zip", "eval_images"}
"""Folders that are never searched for training data, lower case."""


def discover(root: Path, image_root: Path | None = None, split: str = "original") -> list[Part]:
    """Every part of every known family in `root` and in its direct subfolders, sorted by source.

    Args:
        root: a corpus folder, or the parent of several.
        image_root: where image paths are looked up first; otherwise below the corpus folder itself.
        split: MMEB-train's split; other families have none.

    Raises:
        DataError: no such folder, nothing recognised, two sets of one name, or a part that cannot be used.
    """
    root = Path(root)
    image_root = None if image_root is None else Path(image_root)
    for folder in filter(None, (root, image_root)):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: found no folder there; expected one with training data or images; check the path"
            )
    if not re.fullmatch(r"\w+", split):
        raise DataError(f"split {split!r}: expected letters, digits and underscores, such as 'original'")
    parts = [
        part for folder in _folders(root) for family in FAMILIES for part in family.discover(folder, image_root, split)
    ]
    if not parts:
        raise DataError(_nothing_found(root, split))
    parts.sort(key=lambda part: (part.source, part.split, part.first))
    _check_unique(parts)
    return parts


def read(part: Part, start: int, stop: int) -> Iterator[RawSample | Rejected]:
    """Rows [start, stop) of a part, in order: stop - start items, each a sample or a reason why not.

    Raises:
        DataError: the file changed since discovery or is damaged.
        ValueError: the slice is not within [0, part.rows).
    """
    return _READERS[part.reader].read(part, start, stop)


def _folders(root: Path) -> list[Path]:
    return [root] + [folder for folder in visible(root) if folder.is_dir() and folder.name.lower() not in NOT_TRAINING]


def _check_unique(parts: list[Part]) -> None:
    seen: dict[tuple, Part] = {}
    for part in parts:
        other = seen.setdefault((part.source, part.split, part.first), part)
        if other is not part:
            raise DataError(
                f"two sets are called {part.source}: {other.path} and {part.path}; rename or move one of them"
            )


def _nothing_found(root: Path, split: str) -> str:
    splits = sorted({name for folder in _folders(root) for name in mmeb_train.splits(folder)})
    hint = f" There are parquet files of the splits {', '.join(splits)}, but {split!r} was asked for." if splits else ""
    looked_for = "; ".join(family.LOOKS_FOR.replace("<split>", split) for family in FAMILIES)
    found = ", ".join(path.name for path in visible(root)[:10]) or "nothing"
    return (
        f"{root}: no training data recognised, here or one folder down. Looked for {looked_for}. Found {found}.{hint}"
    )
