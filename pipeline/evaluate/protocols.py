"""How each benchmark is asked and scored: the six of the paper by VLMEvalKit's rules for Qwen2-VL, any other set by its columns.

A file is known by its name, as VLMEvalKit knows it. Image sizes are in image tokens, so that they hold for every patch size; VLMEvalKit
states them in pixels of 28 x 28. Sources: VLMEvalKit, `config.py` (qwen2vl_series: at least 1280, at most 16384 tokens an image), `vlm/
qwen2_vl/{model,prompt}.py` (2048 new tokens), `dataset/image_{mcq,yorn,vqa}.py`; for MMEB VLM2Vec-V2.

Invariant: whatever leaves a row out says how many and why, and whatever cannot be scored is refused before any work.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from data_prep.samples import DataError
from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from pipeline.evaluate.metrics import ROTATION, open_match

COLUMNS = ("MMB", "MMVet", "AI2D", "Hallusion", "MMMU", "MMStar")
"""The paper's six columns, in its order; their plain mean is its AVG."""


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is asked.

    column: one of `COLUMNS`, or None for a set of one's own
    kind: what its rows must be (`Benchmark.kind`); None: whatever they are
    image_tokens: least and most tokens of an image; None: the checkpoint's own limits
    max_new_tokens: where an answer is cut off
    split: the only split that is scored; None: all rows
    needs_judge: open answers have no score without a judge
    always_english: the prompt's last sentence does not follow the text's language
    """

    column: str | None = None
    kind: str | None = None
    image_tokens: tuple[int, int] | None = None
    max_new_tokens: int = 64
    split: str | None = None
    needs_judge: bool = False
    always_english: bool = False


_VLMEVALKIT = Protocol(image_tokens=(1280, 16384), max_new_tokens=2048)
_CHOICE = replace(_VLMEVALKIT, kind="multiple_choice")
_SIX: Mapping[str, Protocol] = {
    "mmbench": replace(_CHOICE, column="MMB"),
    "mmvet": replace(_VLMEVALKIT, column="MMVet", kind="open", needs_judge=True),
    "ai2d": replace(_CHOICE, column="AI2D"),
    "hallusionbench": replace(_VLMEVALKIT, column="Hallusion", kind="yes_no"),
    "mmmu_dev_val": replace(_CHOICE, column="MMMU", split="validation", always_english=True),
    "mmstar": replace(_CHOICE, column="MMStar"),
}
OWN = Protocol()
MMEB_IMAGE_TOKENS = 1280
"""Most tokens of an MMEB image (VLM2Vec-V2); the least is the checkpoint's, as in training."""


def protocol_of(name: str) -> Protocol:
    """The protocol of a file by its stem: `MMBench_DEV_EN_V11`, `MMVet`, `AI2D_TEST`, ...; `OWN` for any other name.

    Other languages and hard variants of MMBench (`_CN`, `_CC`), AI2D without its mask and MMMU's test files are asked in the same way, but
    are not the paper's columns.
    """
    lowered = name.lower()
    for start, protocol in _SIX.items():
        if lowered.startswith(start):
            others = ("_cn", "_cc", "no_mask", "_ru", "_pt", "_ar", "_tr")
            return replace(protocol, column=None) if any(mark in lowered for mark in others) else protocol
    return OWN


def selected(benchmark: Benchmark) -> tuple[Benchmark, dict[str, int]]:
    """The rows that are scored, and how many were left out by reason.

    Raises:
        DataError: the benchmark cannot be scored by its protocol (see `_check`).
    """
    protocol = protocol_of(benchmark.name)
    left_out = {"without an image": benchmark.without_image} if benchmark.without_image else {}
    rows = benchmark.rows
    if protocol.split is not None and any("split" in row.extra for row in rows):
        left_out |= Counter(f"of split {row.extra['split']}" for row in rows if row.extra["split"] != protocol.split)
        rows = [row for row in rows if row.extra["split"] == protocol.split]
        if not rows:
            raise DataError(
                f"{benchmark.name}: found no row of split {protocol.split}, which is the one that is scored; take the whole file"
            )
    chosen = replace(benchmark, rows=rows)
    _check(chosen, protocol)
    return chosen, dict(left_out)


def _check(benchmark: Benchmark, protocol: Protocol) -> None:
    if protocol.kind not in (None, benchmark.kind):
        expected = {"multiple_choice": "columns A, B, ... with options", "yes_no": "answers Yes and No alone", "open": "no options"}
        raise DataError(
            f"{benchmark.name}: found {benchmark.kind.replace('_', ' ')} questions; expected {protocol.kind.replace('_', ' ')} ones "
            f"({expected[protocol.kind]}), as the benchmark of that name has. Take VLMEvalKit's file, or give your own set another name"
        )
    if protocol.column == "Hallusion":
        _each(
            benchmark, lambda row: row.index.count("_") >= 5, "an index of six fields joined by '_' (set, figure and question are 4 to 6)"
        )
    if benchmark.kind == "open":
        _each(benchmark, _has_reference, "an answer with a word in each of its <AND> and <OR> parts, or anything would match")
    if benchmark.kind == "multiple_choice":
        _each(benchmark, lambda row: row.options or row.answer.strip(), "options, or the answer to an open question")
        _check_rotations(benchmark)


def _each(benchmark: Benchmark, fits: Callable[[BenchmarkRow], object], expected: str) -> None:
    bad = [row.index for row in benchmark.rows if not fits(row)]
    if bad:
        raise DataError(
            f"{benchmark.name}: found {len(bad)} of {len(benchmark.rows)} rows, the first with index {bad[0]!r}, that cannot be scored; "
            f"expected {expected}"
        )


def _has_reference(row: BenchmarkRow) -> bool:
    try:
        open_match("", row.answer)
    except ValueError:
        return False
    return True


def _check_rotations(benchmark: Benchmark) -> None:
    numbers = [int(row.index) for row in benchmark.rows if row.index.isdecimal()]
    rotated = {number for number in numbers if number >= ROTATION}
    if not rotated:
        return
    if len(numbers) < len(benchmark.rows):
        _each(benchmark, lambda row: row.index.isdecimal(), "whole numbers: rotations are told by index + k * 1,000,000")
    alone = sorted(rotated - {number for number in rotated if number % ROTATION in set(numbers)})
    if alone:
        raise DataError(
            f"{benchmark.name}: found {len(alone)} rotations without their question, the first with index {alone[0]}; expected the "
            f"question {alone[0] % ROTATION} too, or a group would be easier than the protocol's. Take the whole file"
        )
