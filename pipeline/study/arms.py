"""Which runs make up a study: data only, functions of the sources at hand.

Each arm changes the trainer's settings in the words a user would type, so that any of them can be run by hand. Published figures are
CREM's Tables 3 and 4 on Qwen2-VL-2B (`pipeline.evaluate.published`): another model, other data, to be shown beside ours and never as ours.

The paper prints the same figures for "retrieval only" and for "end-of-sequence pooling": one run. So retrieval only is without chorus
here, and stands beside that row; the same with a chorus is an arm of its own, without a published row.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from data_prep.samples import DataError
from pipeline.config import Settings
from pipeline.evaluate import published

Kind = Literal["ablation", "elastic"]
KINDS: tuple[Kind, ...] = ("ablation", "elastic")

FULL_K = 16
"""Chorus tokens of the ablation's arms: the paper's choice."""
ELASTIC_K = (1, 2, 4, 8, 16)
"""Sizes of the elastic figure."""
MAX_K = 64
"""The most chorus tokens the paper tries."""


class Published(Settings):
    """A row of the paper, in percent."""

    row: str
    mmeb: float
    native: float
    compressed: float | None


class Arm(Settings):
    """One training run and its evaluations."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Names its folder, its metrics and its row."""
    title: str
    """What it is, for people."""
    k: int = Field(ge=0, le=MAX_K)
    """Chorus tokens of the checkpoint it starts from; 0: end-of-sequence pooling."""
    words: tuple[str, ...] = ()
    """Trainer options, as on its command line."""
    evaluate_at: tuple[int, ...]
    """Chorus tokens that are scored, each in an evaluation of its own; (0,) without a chorus."""
    published: Published | None = None
    """The paper's row that this arm corresponds to."""


class Sources(NamedTuple):
    """Names of the training sources that hold answers: about MMEB's own images (synthetic QA), and from elsewhere (ShareGPT4V)."""

    homogeneous: tuple[str, ...]
    heterogeneous: tuple[str, ...]
    conversations: tuple[str, ...]
    """Those among both whose rows are no pairs: what batch.conversations is filled with."""


NO_COMPRESSION = ("--loss.compression-probability", "0")
RETRIEVAL_ONLY = ("--loss.generation-weight", "0", "--batch.conversations", "0")  # rows without a pair would train nothing
GENERATION_ONLY = ("--loss.retrieval-weight", "0")


def ablation(sources: Sources, k: int = FULL_K, sweep: Sequence[int] = ()) -> tuple[Arm, ...]:
    """CREM with parts left out, then with other numbers of chorus tokens (`sweep`; `k` itself is the full arm).

    Raises:
        DataError: a number of chorus tokens is not in 1 .. 64.
    """
    _check((k, *sweep))
    at, none = (k,), (0,)
    parts = [
        Arm(name="retrieval_only", title="retrieval only, no chorus (CREM_R)", k=0, words=RETRIEVAL_ONLY, evaluate_at=none),
        Arm(name="retrieval_only_chorus", title="retrieval only, with chorus", k=k, words=RETRIEVAL_ONLY, evaluate_at=at),
        Arm(name="generation_only", title="generation only (CREM_G)", k=k, words=(*GENERATION_ONLY, *NO_COMPRESSION), evaluate_at=at),
        Arm(name="both_losses", title="both losses, no chorus", k=0, words=NO_COMPRESSION, evaluate_at=none),
        Arm(name="both_losses_chorus", title="both losses and chorus, no compression", k=k, words=NO_COMPRESSION, evaluate_at=at),
        Arm(name="full", title="CREM", k=k, evaluate_at=at),
    ]
    rows = {"retrieval_only": 0, "generation_only": 1, "both_losses": 2, "full": 3}
    parts = [arm.model_copy(update={"published": _part(rows[arm.name])}) if arm.name in rows else arm for arm in parts]
    return (*parts, *_data_arms(sources, k), *(fixed(size) for size in sorted(set(sweep) - {k})))


def elastic(sizes: Sequence[int] = ELASTIC_K) -> tuple[Arm, ...]:
    """One elastic run scored at every size, and one run of fixed size for each.

    Raises:
        DataError: fewer than two sizes, or one that is not in 1 .. 64.
    """
    _check(sizes)
    sizes = tuple(sorted(set(sizes)))
    if len(sizes) < 2:
        raise DataError(f"--k {','.join(map(str, sizes))}: found one size; expected two or more, or there is nothing elastic to compare")
    words = ("--chorus.elastic", *map(str, sizes))
    title = f"elastic chorus, trained for {', '.join(map(str, sizes))}"
    return (Arm(name="elastic", title=title, k=sizes[-1], words=words, evaluate_at=sizes), *(fixed(size) for size in sizes))


def fixed(k: int) -> Arm:
    """CREM with k chorus tokens."""
    row = next((row for row in published.CHORUS if row.chorus == k), None)
    known = row and Published(row=f"K = {k}", mmeb=row.mmeb, native=row.native, compressed=row.compressed)
    return Arm(name=f"k{k}", title=f"CREM, K = {k}", k=k, evaluate_at=(k,), published=known)


def selected(arms: Sequence[Arm], names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of these names, in the study's order; all where none is named.

    Raises:
        DataError: a name that no arm has.
    """
    known = {arm.name for arm in arms}
    if unknown := sorted(set(names) - known):
        raise DataError(f"--arms: found {', '.join(unknown)}; expected names among {', '.join(arm.name for arm in arms)}")
    return tuple(arm for arm in arms if not names or arm.name in names)


def _part(number: int) -> Published:
    row = published.ABLATION[number]
    return Published(row=row.variant, mmeb=row.mmeb, native=row.native, compressed=row.compressed)


def _data_arms(sources: Sources, k: int) -> list[Arm]:
    """The full method on one kind of generation data; only where both kinds are there, or it would be the full arm again."""
    if not (sources.homogeneous and sources.heterogeneous):
        return []
    kinds = (("homogeneous", "synthetic QA", sources.heterogeneous), ("heterogeneous", "ShareGPT4V", sources.homogeneous))
    return [
        Arm(
            name=f"{name}_only",
            title=f"CREM, {name} generation data only ({what})",
            k=k,
            words=_without(left_out, sources.conversations),
            evaluate_at=(k,),
        )
        for name, what, left_out in kinds
    ]


def _without(left_out: Sequence[str], conversations: Sequence[str]) -> tuple[str, ...]:
    words = ("--data.weights", *(word for name in left_out for word in (name, "0")))
    return words if set(conversations) - set(left_out) else (*words, "--batch.conversations", "0")


def _check(sizes: Sequence[int]) -> None:
    if wrong := [size for size in sizes if not 1 <= size <= MAX_K]:
        raise DataError(f"found {wrong[0]} chorus tokens; expected 1 to {MAX_K}, e.g. --k 1,4,16 (K = 0 is the arm both_losses)")
