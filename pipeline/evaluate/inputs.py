"""What would stop an evaluation half-way is looked for first: missing images, names that occur twice, benchmarks that cannot be scored."""

from collections.abc import Iterable, Sequence

from data_prep.images import ImageError, resolve
from data_prep.samples import DataError, ImageRef
from data_prep.sources.benchmarks import Benchmark
from data_prep.sources.mmeb_eval import EvalSet
from pipeline.evaluate.protocols import selected


def check(sets: Sequence[EvalSet], benchmarks: Sequence[Benchmark]) -> None:
    """Refuse what cannot be scored whole. Images are looked for, not opened: one that is broken is an error when its turn comes.

    Raises:
        DataError: an image file is missing (all are counted, the first three named), two sets or benchmarks have one name, or a benchmark
            cannot be scored by its protocol.
    """
    for what, names in (("set", [s.name for s in sets]), ("benchmark", [b.name for b in benchmarks])):
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(
                f"found the {what} {twice[0]} {names.count(twice[0])} times; expected every name once, or one result would hide the other"
            )
    for benchmark in benchmarks:
        selected(benchmark)
    shown = {id(side): side for eval_set in sets for row in eval_set.rows for side in (row.query, *row.candidates)}
    refs = dict.fromkeys(image for side in shown.values() for image in side.images)
    refs |= dict.fromkeys(image for benchmark in benchmarks for row in benchmark.rows for image in row.images if image.data is None)
    missing = list(_missing(refs))
    if missing:
        named = "; ".join(missing[:3] + ["..."] * (len(missing) > 3))
        raise DataError(
            f"found {len(missing)} of {len(refs)} image files missing or unusable: {named}. Scores need every row: "
            "put the images there, or name the folder that image paths are relative to (--image-root)"
        )


def _missing(refs: Iterable[ImageRef]) -> Iterable[str]:
    for ref in refs:
        if ref.data is None and ref.picture is None:
            try:
                resolve(ref)
            except ImageError as error:
                yield str(error)
