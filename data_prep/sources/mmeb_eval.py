"""MMEB-eval: ranking tasks, one folder per set; candidate 0 is the right one.

    <root>/<Set>/test-*.parquet      qry_text, qry_img_path: string; tgt_text, tgt_img_path: lists of equal length;
                                     optionally qry_inst, tgt_inst (MMEB_Test_Instruct), put before the texts: before a
                                     candidate's only where it has an image, labels and captions stay bare
    <root>/tasks.json                optional, for sets of one's own: {"Name": {"meta": "vqa", "split": "OOD"}}

Format: `TIGER-Lab/MMEB-eval` and `ziyjiang/MMEB_Test_Instruct` on the Hub. Invariant: candidate lists come in the
stored order and length (ObjectNet's real label set has 113 names, not the paper's 313; answers may repeat), and
nothing is dropped: a query without content or without a right answer is an error, so that scores have the denominator
they claim.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.samples import DataError, Side
from data_prep.sources.common import ROWS_PROBED, image_base, side, visible
from data_prep.sources.mmeb_sets import METAS, SPLITS, refuse_not_yet, task_of
from data_prep.sources.parquet import TEXT, TEXT_OR_TEXTS, TEXTS, Table

REQUIRED = {"qry_text": TEXT, "qry_img_path": TEXT, "tgt_text": TEXTS, "tgt_img_path": TEXTS}
OPTIONAL = {"qry_inst": TEXT, "tgt_inst": TEXT_OR_TEXTS}


@dataclass(frozen=True)
class EvalRow:
    """One query and its candidates, of which number 0 is right."""

    query: Side
    candidates: tuple[Side, ...]


@dataclass(frozen=True)
class EvalSet:
    """One ranking task. `meta` (one of `METAS`) and `split` (one of `SPLITS`) are None for a set nobody classified."""

    name: str
    meta: str | None
    split: str | None
    rows: list[EvalRow]


def load_sets(root: Path, image_root: Path | None = None) -> list[EvalSet]:
    """As `each_set`, all at once."""
    return list(each_set(root, image_root))


def each_set(root: Path, image_root: Path | None = None) -> Iterator[EvalSet]:
    """Every set below `root`, sorted by folder name. Equal sides of one file are one object.

    Image paths are relative to the first of `image_root`, `root`/images, `root`, `root`/eval_images and `root`/images/MMEB (MMEB-V2's
    archive) that holds the set's first one.

    Raises:
        DataError: no folder, no sets, a video or document task of MMEB-V2, wrong columns, an unusable row (named), a missing first image,
            a bad tasks.json.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: found no folder there; expected one with evaluation sets; check the path")
    folders = [folder for folder in visible(root) if folder.is_dir()]
    for folder in folders:
        refuse_not_yet(root, folder.name)
    files = {folder: _files(folder) for folder in folders}
    files = {folder: paths for folder, paths in files.items() if paths}
    if not files:
        found = ", ".join(path.name for path in visible(root)[:10]) or "nothing"
        raise DataError(f"{root}: no evaluation sets; looked for <Set>/test-*.parquet; found {found}")
    extra = _tasks(root / "tasks.json")
    bases = (None if image_root is None else Path(image_root), root / "images", root, root / "eval_images", root / "images" / "MMEB")
    return (_set(folder, paths, bases, extra) for folder, paths in files.items())


def holds_sets(root: Path) -> bool:
    """Whether a folder is of this format: a set in one of its folders."""
    return any(folder.is_dir() and _files(folder) for folder in visible(root))


def _files(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.name.startswith("test-") and path.suffix == ".parquet"]


def _tasks(path: Path) -> dict[str, tuple[str, str]]:
    if not path.exists():
        return {}
    try:
        stated = json.loads(path.read_bytes())
        tasks = {name: (task["meta"], task["split"]) for name, task in stated.items()}
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f'{path}: expected {{"Name": {{"meta": ..., "split": ...}}}}: {error!r}') from error
    for name, (meta, split) in tasks.items():
        if meta not in METAS or split not in SPLITS:
            expected = f"meta one of {', '.join(METAS)} and split one of {', '.join(SPLITS)}"
            raise DataError(f"{path}: {name}: found meta {meta!r} and split {split!r}; expected {expected}")
    return tasks


def _set(folder: Path, paths: list[Path], bases: tuple[Path | None, ...], extra: dict) -> EvalSet:
    meta, split = task_of(folder.name) or extra.get(folder.name, (None, None))
    rows: list[EvalRow] = []
    for path in paths:
        with Table(path, REQUIRED, OPTIONAL) as table:
            root = image_base(path, filter(None, [_first_image(table)]), bases)
            rows += _rows(table, root)
    return EvalSet(folder.name, meta, split, rows)


def _first_image(table: Table) -> str | None:
    for _, row in table.slice(0, ROWS_PROBED):
        for path in (row["qry_img_path"], *(row["tgt_img_path"] or ())):
            if path:
                return path
    return None


def _rows(table: Table, root: Path) -> Iterator[EvalRow]:
    sides: dict[tuple[str, str], Side] = {}

    def make(instruction: str | None, text: str | None, path: str | None) -> Side:
        if instruction:
            text = f"{instruction} {text or ''}".replace(" \n", "\n") if path else f"{instruction} {text or ''}"
        made = side(text, path, root)
        return sides.setdefault((made.text, path or ""), made)

    for number, row in table.slice(0, table.rows):
        where = f"{table.path}, row {number}"
        texts, paths = _lists(row, where)
        instructions = row.get("tgt_inst")
        if not isinstance(instructions, list):
            instructions = [instructions] * len(texts)
        if len(instructions) != len(texts):
            raise DataError(
                f"{where}: found {len(instructions)} tgt_inst for {len(texts)} tgt_text; expected equal numbers"
            )
        query = make(row.get("qry_inst"), row["qry_text"], row["qry_img_path"])
        instructions = [instruction if path else None for instruction, path in zip(instructions, paths, strict=True)]
        candidates = tuple(map(make, instructions, texts, paths))
        if query.empty or candidates[0].empty:
            which = "query" if query.empty else "right candidate (number 0)"
            raise DataError(f"{where}: found a {which} with neither text nor image; expected one of them")
        yield EvalRow(query, candidates)


def _lists(row: dict, where: str) -> tuple[list, list]:
    texts, paths = row["tgt_text"] or [], row["tgt_img_path"] or []
    if len(texts) != len(paths):
        raise DataError(f"{where}: found {len(texts)} tgt_text and {len(paths)} tgt_img_path; expected equal numbers")
    if not texts:
        raise DataError(f"{where}: found an empty candidate list; expected the right candidate first, then others")
    return texts, paths
