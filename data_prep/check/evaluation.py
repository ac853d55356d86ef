"""Evaluation data below a folder: every set and benchmark is loaded as the evaluation loads it, and its images are opened."""

from collections.abc import Iterator
from pathlib import Path

from data_prep.check.scan import MISSING, Findings, verdict
from data_prep.samples import DataError, ImageRef
from data_prep.sources import Unusable
from data_prep.sources.benchmarks import load_benchmark
from data_prep.sources.common import visible
from data_prep.sources.mmeb_eval import each_set


def evaluation_findings(root: Path, image_root: Path | None, taken: set[Path]) -> Iterator[tuple[str, Findings | Unusable]]:
    """(name, what was found) for every MMEB-format set and every TSV in `root` and its direct subfolders; nothing where there is none.

    Args:
        taken: files that a training source reads.
    """
    if not root.is_dir():
        return
    for folder in [root, *(path for path in visible(root) if path.is_dir())]:
        if any(folder.glob("[!.]*/test-*.parquet")):
            yield from _sets(folder, image_root)
        for path in (path for path in visible(folder) if path.suffix == ".tsv" and path not in taken):
            yield _benchmark(path)


def _sets(folder: Path, image_root: Path | None) -> Iterator[tuple[str, Findings | Unusable]]:
    try:
        for loaded in each_set(folder, image_root):
            sides = {side for row in loaded.rows for side in (row.query, *row.candidates)}
            refs = {image: None for side in sides for image in side.images}
            yield f"{folder.name}/{loaded.name}", _opened(len(loaded.rows), sorted(refs, key=lambda ref: ref.name))
    except DataError as error:
        yield folder.name, Unusable(folder.name, folder, str(error))


def _benchmark(path: Path) -> tuple[str, Findings | Unusable]:
    try:
        loaded = load_benchmark(path)
    except DataError as error:
        return path.name, Unusable(path.name, path, str(error))
    return f"{path.parent.name}/{path.name}", _opened(len(loaded.rows), list({ref: None for row in loaded.rows for ref in row.images}))


def _opened(rows: int, refs: list[ImageRef]) -> Findings:
    found = Findings(rows=rows, images=len(refs), opened=len(refs))
    for ref in refs:
        wrong = verdict(ref, True)[0]
        if wrong:
            found.add(wrong, ref.name)
            missing = wrong.split(":")[0] in MISSING
            found.missing += missing
            found.unreadable += not missing
    return found
