"""Evaluation data -> `decontaminate.EvaluationIndex`: finds the sets, has their images decoded by the workers, once for all shards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.cluster import as_finished
from data_prep.decontaminate import EvaluationIndex, Look, alone, look
from data_prep.images import ImageError, open_image
from data_prep.samples import DataError, ImageRef, Side
from data_prep.sources import mmeb_eval
from data_prep.sources.benchmarks import Benchmark, load_benchmark
from data_prep.sources.common import visible
from data_prep.sources.mmeb_eval import EvalSet, load_sets

IMAGES_PER_TASK = 256
LABELS = ("classification", "vqa")
"""Meta-tasks whose targets are labels or answers, however long: they are shared by design."""


@dataclass(frozen=True)
class Evaluation:
    """What evaluation data shows and says: (place, fingerprint) of its images, (place, text) of its texts that stand alone."""

    looks: list[tuple[str, Look]]
    texts: list[tuple[str, str]]


def evaluation_index(roots: tuple[Path, ...], workers: int, say: Callable[[str], None] = print) -> EvaluationIndex:
    """The index of everything below `roots`; see `read_evaluation`."""
    found = read_evaluation(roots, workers)
    say(f"compared with {len(found.looks)} images and {len(found.texts)} texts of evaluation data")
    return EvaluationIndex(found.looks, found.texts)


def read_evaluation(roots: tuple[Path, ...], workers: int) -> Evaluation:
    """Images and texts of everything below `roots`, the same for any number of workers; Ray must be running.

    Args:
        roots: MMEB-eval folders, benchmark TSVs or folders of them, or folders that hold such folders.

    Raises:
        DataError: nothing to evaluate there, an unusable set, or an image that cannot be decoded: its copies would go unnoticed.
    """
    images: dict[ImageRef, str] = {}
    texts: dict[str, str] = {}
    for root in roots:
        for place, side, label in _sides(root):
            for ref in side.images:
                images.setdefault(ref, place)
            for text in [] if label else alone([side]):
                texts.setdefault(text, place)
    refs = list(images)
    chunks = [tuple(refs[start : start + IMAGES_PER_TASK]) for start in range(0, len(refs), IMAGES_PER_TASK)]
    looks = dict(as_finished(looks_of, chunks, (), workers))
    paired = [(images[ref], own) for chunk in chunks for ref, own in zip(chunk, looks[chunk], strict=True)]
    return Evaluation(paired, [(place, text) for text, place in texts.items()])


def looks_of(refs: tuple[ImageRef, ...]) -> list[Look]:
    """Fingerprints of some images, in order."""
    try:
        return [look(open_image(ref)) for ref in refs]
    except ImageError as error:
        raise DataError(
            f"evaluation data: {error}; its copies among the training images would go unnoticed. "
            "Mend it, or leave that set out of --against"
        ) from error


def _sides(root: Path) -> Iterator[tuple[str, Side, bool]]:
    """(place, side, whether its text is a label) of every query, candidate and question."""
    sets, benchmarks = find_evaluation(root)
    for eval_set in sets:
        for number, row in enumerate(eval_set.rows):
            yield f"{eval_set.name}, row {number}, query", row.query, False
            for place, side in enumerate(row.candidates):
                yield f"{eval_set.name}, row {number}, candidate {place}", side, eval_set.meta in LABELS
    for benchmark in benchmarks:
        for row in benchmark.rows:
            yield f"{benchmark.name}, index {row.index}", Side(row.question, row.images), False


def find_evaluation(root: Path) -> tuple[list[EvalSet], list[Benchmark]]:
    """The evaluation sets and benchmarks below a folder, or a benchmark file's own.

    Raises:
        DataError: no such folder, nothing to evaluate there, or an unusable set.
    """
    if root.suffix == ".tsv":
        return [], [load_benchmark(root)]
    if not root.is_dir():
        raise DataError(f"{root}: found no folder there; expected one with evaluation data (--against); check the path")
    folders = [root, *(folder for folder in visible(root) if folder.is_dir())]
    sets = [found for folder in folders if mmeb_eval.holds_sets(folder) for found in load_sets(folder)]
    benchmarks = [load_benchmark(path) for folder in folders for path in visible(folder) if path.suffix == ".tsv"]
    if not sets and not benchmarks:
        raise DataError(
            f"{root}: no evaluation data recognised, here or one folder down (--against). Looked for an MMEB-eval folder: "
            "<Set>/test-*.parquet; benchmarks: *.tsv. Nothing would be compared"
        )
    return sets, benchmarks
