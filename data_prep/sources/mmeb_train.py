"""MMEB-train: contrastive pairs in one folder per subset.

    <root>/<Subset>/<split>-00000-of-00001.parquet      strings qry, qry_image_path, pos_text, pos_image_path,
                                                        optionally neg_text, neg_image_path
    <root>/images/...                                   what image paths are relative to: <root>; see `_bases` for where else

A path cell of query or positive may be a list as well, of strings or written as Python source: several images, shown in that order.
Format: `TIGER-Lab/MMEB-train` on the Hub, splits `original`, `diverse_instruction` and, older, `train`; also
`intfloat/mmE5-MMEB-hardneg`, whose neg columns hold Python lists written as strings. Invariant: the id of a sample is
"mmeb_train/<Subset>/<split>/<row>", rows counted over all files of the split.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.samples import RawSample, Rejected, Side
from data_prep.sources.common import (
    ROWS_PROBED,
    Part,
    RowError,
    Unusable,
    check_range,
    convert,
    image_base,
    required_side,
    side,
    usable,
    visible,
)
from data_prep.sources.parquet import TEXT, TEXT_OR_TEXTS, Table

LOOKS_FOR = "an MMEB-train folder: <Subset>/<split>-*.parquet"
REQUIRED = {"qry": TEXT, "qry_image_path": TEXT_OR_TEXTS, "pos_text": TEXT, "pos_image_path": TEXT_OR_TEXTS}
OPTIONAL = {"neg_text": TEXT_OR_TEXTS, "neg_image_path": TEXT_OR_TEXTS}
_FILE = re.compile(r"(?P<split>\w+)-\d+-of-\d+\.parquet")


def discover(root: Path, image_root: Path | None, split: str) -> Iterator[Part | Unusable]:
    """Every file of `split` in the subset folders of `root`; nothing when no subset has that split.

    Unusable: a subset without the split that others have, a file with wrong columns, without rows, or whose images are not found.
    """
    subsets = {folder: _files(folder) for folder in visible(root) if folder.is_dir()}
    having = [folder for folder, files in subsets.items() if split in files]
    lacking = [folder for folder, files in subsets.items() if files and split not in files]
    for folder in lacking if having else ():
        reason = (
            f"{root}: split {split!r} found in {len(having)} subsets but not in {folder.name}; "
            "download it, move that folder away, or name another split"
        )
        yield Unusable(f"mmeb_train/{folder.name}", folder, reason)
    for folder in having:
        yield from _parts(folder, subsets[folder][split], _bases(root, folder, image_root), split)


def _bases(root: Path, folder: Path, image_root: Path | None) -> tuple[Path | None, ...]:
    """Where a subset's image paths may start: mmE5's sets also name images of an MMEB-train beside them, or of their own archives."""
    own = None if image_root is None else image_root / folder.name
    return (own, image_root, root, root / "images", root.resolve().parent / "MMEB-train")


def splits(root: Path) -> set[str]:
    """Names of the splits that any subset folder of `root` has."""
    return {split for folder in visible(root) if folder.is_dir() for split in _files(folder)}


def _files(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in visible(folder):
        if named := _FILE.fullmatch(path.name):
            files.setdefault(named["split"], []).append(path)
    return files


def _parts(folder: Path, files: list[Path], bases: tuple[Path | None, ...], split: str) -> Iterator[Part | Unusable]:
    source, first = f"mmeb_train/{folder.name}", 0
    for path in files:
        for part in usable(source, path, lambda path=path, first=first: [_part(source, path, bases, split, first)]):
            yield part
            first += part.rows if isinstance(part, Part) else 0


def _part(source: str, path: Path, bases: tuple[Path | None, ...], split: str, first: int) -> Part:
    with Table(path, REQUIRED, OPTIONAL) as table:
        return Part(source, "mmeb_train", path, table.rows, image_base(path, _images(table), bases), split, first)


def _images(table: Table) -> Iterator[str]:
    for _, row in table.slice(0, ROWS_PROBED):
        yield from filter(None, (*values(row["qry_image_path"]), *values(row["pos_image_path"])))


def read(part: Part, start: int, stop: int) -> Iterator[RawSample | Rejected]:
    """Rows [start, stop) in order; a row whose query or positive is empty is rejected."""
    with Table(part.path, REQUIRED, OPTIONAL) as table:
        check_range(part, start, stop, table.rows)
        yield from convert(part, table.slice(start, stop), _sample)


def _sample(part: Part, number: int, row: dict) -> RawSample:
    return RawSample(
        id=part.row_id(number),
        source=part.source,
        query=required_side("query", row["qry"], values(row["qry_image_path"]), part.root),
        positive=required_side("positive", row["pos_text"], values(row["pos_image_path"]), part.root),
        negatives=negatives(row.get("neg_text"), row.get("neg_image_path"), part.root),
    )


def negatives(texts: str | list | None, paths: str | list | None, root: Path) -> tuple[Side, ...]:
    """The negative sides of MMEB's two neg columns; an empty one is no negative.

    Either cell may be a string, null, a list of strings, or such a list written as Python source. A single empty cell
    stands for as many empty ones as the other has.

    Raises:
        RowError: both have values, but not equally many.
    """
    texts, paths = values(texts), values(paths)
    texts = texts or [""] * len(paths)
    paths = paths or [""] * len(texts)
    if len(texts) != len(paths):
        raise RowError(f"negatives: {len(texts)} texts but {len(paths)} images")
    sides = (side(text, path, root) for text, path in zip(texts, paths, strict=True))
    return tuple(made for made in sides if not made.empty)


def values(cell: str | list | None) -> list[str]:
    """The texts or paths of a cell: a string, null, a list, or a list written as Python source."""
    if isinstance(cell, str) and cell.startswith("[") and cell.endswith("]"):
        cell = _parsed(cell)
    if isinstance(cell, list):
        return [value or "" for value in cell]
    return [cell] if cell else []


def _parsed(cell: str) -> str | list[str]:
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return cell  # a text that merely stands in brackets
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else cell
