"""Every corpus as one list of `Part`s, each readable in slices of `RawSample`s.

A family is a module of this package with `LOOKS_FOR` (what it recognises, for people), `discover(root, image_root, split)`, which
yields a `Part` or an `Unusable` for every file, and `read(part, start, stop)`: adding a source is that one file. `mmeb_eval` and
`benchmarks` read what is evaluated, never what is trained on. Invariant: parts and rows come in an order that depends
on file names and contents only, and no two rows share an id.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from data_prep.samples import DataError, RawSample, Rejected
from data_prep.sources import mmeb_train
from data_prep.sources.common import Part, Unusable, visible

__all__ = ["FAMILIES", "Part", "Unusable", "check_distinct", "discover", "read", "survey"]

FAMILIES = tuple(
    module
    for module in (import_module(f"{__name__}.{found.name}") for found in sorted(iter_modules(__path__)))
    if hasattr(module, "LOOKS_FOR")
)
"""Every module of this package that is a family, by name."""

_READERS = {family.__name__.rpartition(".")[2]: family for family in FAMILIES}

NOT_TRAINING = {"mmeb-eval", "mmeb-test-instruct", "benchmarks", "lmudata", "images", "images_zip", "eval_images"}
"""Folders that are never searched for training data, lower case."""


class NothingRecognisedError(DataError):
    """There is no training data in a folder."""


def discover(root: Path, image_root: Path | None = None, split: str = "original") -> list[Part]:
    """Every part of every known family in `root` and in its direct subfolders, sorted by source.

    Args:
        root: a corpus folder, or the parent of several.
        image_root: where image paths are looked up first; otherwise below the corpus folder itself.
        split: MMEB-train's split; other families have none.

    Raises:
        DataError: no such folder, nothing recognised, two sets of one name, or a part that cannot be used.
    """
    found = survey(root, image_root, split)
    for unusable in found:
        if isinstance(unusable, Unusable):
            raise DataError(unusable.reason)
    parts = sorted(found, key=lambda part: (part.source, part.split, part.first))
    _check_unique(parts)
    return parts


def survey(root: Path, image_root: Path | None = None, split: str = "original") -> list[Part | Unusable]:
    """As `discover`, but in no order, and what cannot be used stands in its place instead of ending the search.

    Raises:
        DataError: no such folder, or MMEB-train sets without that split.
        NothingRecognisedError: no training data.
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
    found: dict[object, Part | Unusable] = {}
    for part in (part for folder in _folders(root) for family in FAMILIES for part in family.discover(folder, image_root, split)):
        # a damaged json file is nobody's and everybody's: two families then say the same of it
        found.setdefault((part.path, part.reason) if isinstance(part, Unusable) else part, part)
    if not found:
        raise NothingRecognisedError(_nothing_found(root, split))
    for folder in _folders(root):  # other data below the root must not hide that MMEB-train's are left out
        if (there := mmeb_train.splits(folder)) and split not in there:
            names = ", ".join(sorted(there))
            raise DataError(f"{folder}: found MMEB-train sets of the splits {names}, expected {split!r} as well; name another --split")
    return list(found.values())


def read(part: Part, start: int, stop: int) -> Iterator[RawSample | Rejected]:
    """Rows [start, stop) of a part, in order: stop - start items, each a sample or a reason why not.

    Raises:
        DataError: the file changed since discovery or is damaged.
        ValueError: the slice is not within [0, part.rows).
    """
    return _READERS[part.reader].read(part, start, stop)


def check_distinct(parts: list[Part]) -> None:
    """Refuse two sets of one name in several folders: their rows would share ids, and batches would mix them as one source.

    Raises:
        DataError: a set that is named twice, or two of one name.
    """
    seen: set[tuple[Path, str]] = set()
    folders: dict[str, Path] = {}
    for part in parts:
        path = part.path.resolve()
        if (path, part.kind) in seen:
            raise DataError(f"{part.path}: found it twice among the folders given; expected every set once. Name each folder once")
        seen.add((path, part.kind))
        folder = folders.setdefault(part.source, path.parent)
        if folder != path.parent:
            raise DataError(
                f"{part.source}: found sets of this name in {folder} and in {path.parent}; expected one, since their rows would "
                "share ids. Rename one of the two, or prepare one of them only"
            )


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
