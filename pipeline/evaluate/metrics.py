"""Scores from predictions: retrieval ranks, MMEB averages, answers read out of free text, and what guessing scores.

Everything here is a pure function of plain values. Invariants: every score is a fraction in [0, 1]; a broken prediction
(NaN, unreadable text) can only lower a score, never raise it or leave the denominator; nothing here asks a judge model,
so what would need one comes back as None and is counted by the caller.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

META_TASKS = ("CLS", "VQA", "RET", "GD")
SPLITS = ("IND", "OOD")
AVERAGES = (*META_TASKS, *SPLITS, "all")

OPEN_LABEL = "string recall (no judge)"
"""What a score made with `open_match` must be called; it is not MMVet's score, which needs a GPT judge."""

REFUSED = "Z"
CHANCE_YES_NO = 0.5
ROTATION = 1_000_000

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_OPTION_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_YES_NO_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ANSWER_IS = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([A-D])\**", re.IGNORECASE)


class Ranking(NamedTuple):
    """One query's outcome. `best` is the index of the top candidate, -1 where no score was finite."""

    hit: bool
    strict_hit: bool
    best: int


def precision_at_1(scores: np.ndarray) -> Ranking:
    """Rank one query's own candidates; candidate 0 is the true one (MMEB, `eval.py` of VLM2Vec).

    `hit` is MMEB's rule: the first maximum wins, so ties favour the truth. `strict_hit` counts a tie as wrong: a
    collapsed model, whose embeddings are all alike, scores 1.0 under the first rule and 0.0 under the second. Scores
    that are not finite rank below everything; a true candidate without a finite score is a miss.

    Args:
        scores: similarities of shape [candidates], the true one first.
    """
    scores = np.asarray(scores)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores must have shape [candidates] with at least one candidate, found {scores.shape}")
    finite = np.isfinite(scores)
    if not finite.any():
        return Ranking(hit=False, strict_hit=False, best=-1)
    ranked = np.where(finite, scores, -np.inf)
    best = int(ranked.argmax())
    hit = best == 0
    return Ranking(hit=hit, strict_hit=hit and not (ranked[1:] == ranked[0]).any(), best=best)


class SetScore(NamedTuple):
    """One data set's score; `meta` is one of META_TASKS or None, `split` one of SPLITS or None."""

    meta: str | None
    split: str | None
    value: float


def _members(rows: Iterable[SetScore]) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {name: [] for name in AVERAGES}
    for row in rows:
        if row.meta not in (*META_TASKS, None) or row.split not in (*SPLITS, None):
            raise ValueError(f"meta {row.meta!r} / split {row.split!r}: expected {META_TASKS} / {SPLITS} or None")
        if not np.isfinite(row.value):
            raise ValueError(f"a set's score must be finite, found {row.value} ({row.meta}, {row.split})")
        for name in {row.meta, row.split, "all"} - {None}:
            out[name].append(row.value)
    return out


def average(rows: Iterable[SetScore]) -> dict[str, float | None]:
    """MMEB's averages: the mean over the sets within each of AVERAGES, all sets weighing the same; None where none is.

    A set without a meta-task or split counts only in the averages it belongs to, and always in "all".
    """
    return {name: float(np.mean(values)) if values else None for name, values in _members(rows).items()}


def coverage(rows: Iterable[SetScore]) -> dict[str, int]:
    """How many sets stand behind each value of `average`."""
    return {name: len(values) for name, values in _members(rows).items()}


def extract_option(prediction: str, options: Mapping[str, str], *, answer_is: bool = False, wary_of_article: bool = False) -> str | None:
    """The option a free-text answer chose, by VLMEvalKit's rules 1-5 (`matching_util.py`); no judge.

    1. a fixed refusal phrase -> 'Z'; 2. exactly one option letter among the words, first seen within the last four ->
    that letter; 3. no letter but the word 'Z' -> 'Z'; 4. (`answer_is`) "answer is X" -> X; 5. exactly one option's text
    inside an answer no longer than twice all the option texts -> that option.

    Args:
        options: letter -> text; options with empty text are absent.
        answer_is: rule 4, A-D only. VLMEvalKit has it since June 2026; off compares with the paper's time.
        wary_of_article: VLMEvalKit under VERBOSE: an 'A' among more than three words may be an article, so rule 2 is
            skipped.

    Returns:
        A letter, 'Z' for a refusal, or None where VLMEvalKit would ask a judge (score it as wrong, and count it).
    """
    if any(phrase in prediction for phrase in _REFUSALS):
        return REFUSED
    options = {letter: str(text).lower() for letter, text in options.items() if str(text).strip()}
    words = prediction.translate(_OPTION_PUNCTUATION).split()
    named = [letter for letter in options if letter in words]
    article = wary_of_article and "A" in words and len(words) > 3
    if len(named) == 1 and not article and words.index(named[0]) >= len(words) - 4:
        return named[0]
    if not named and REFUSED in words:
        return REFUSED
    if answer_is and not (article and len(named) == 1) and (found := _ANSWER_IS.search(prediction)) and found[1].upper() in options:
        return found[1].upper()
    return _option_by_text(prediction.lower(), options)


def _option_by_text(answer: str, options: Mapping[str, str]) -> str | None:
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    named = [letter for letter, text in options.items() if text in answer]
    return named[0] if len(named) == 1 else None


def extract_yes_no(prediction: str) -> str | None:
    """'Yes' or 'No' where exactly one of the two stands as a word, else None (VLMEvalKit `YOrN_Extraction`).

    Its punctuation rule (VQA's) is kept with its oddity: a mark next to a space anywhere is deleted, any other becomes
    a space; `*`, `:` and quotes `'` are not marks, so "**Yes**" is unreadable.
    """
    text = prediction.lower()
    thousands = re.search(r"\d,\d", text)
    cleaned = text
    for mark in _YES_NO_PUNCTUATION:
        cleaned = cleaned.replace(mark, "" if thousands or f"{mark} " in text or f" {mark}" in text else " ")
    words = set(re.sub(r"\.(?!\d)", "", cleaned).split())
    if ("yes" in words) == ("no" in words):
        return None
    return "Yes" if "yes" in words else "No"


def circular_groups(indices: Sequence[int], correct: Sequence[bool]) -> float:
    """MMBench's CircularEval: the share of questions whose every rotation is right (VLMEvalKit `mcq_circular_eval`).

    A question's rotations carry index + k * 10^6. Without rotations this is plain accuracy. Rows must hold whole
    groups: a group cut short is easier than the protocol's.
    """
    return _all_right(((index % ROTATION,) for index in indices), correct)


def _all_right(groups: Iterable[tuple], correct: Sequence[bool]) -> float:
    right: dict[tuple, bool] = {}
    for group, is_right in zip(groups, correct, strict=True):
        right[group] = right.get(group, True) and bool(is_right)
    if not right:
        raise ValueError("no rows to score")
    return sum(right.values()) / len(right)


class Hallusion(NamedTuple):
    """HallusionBench's three accuracies (per question, figure, question over its figures) and their mean."""

    a_acc: float
    f_acc: float
    q_acc: float

    @property
    def mean(self) -> float:
        """What papers quote as HallusionBench."""
        return sum(self) / 3


def hallusion(indices: Sequence[str], categories: Sequence[str], correct: Sequence[bool]) -> Hallusion:
    """Score HallusionBench (VLMEvalKit `Hallusion_rating`).

    Args:
        indices: row ids such as "VD_figure_1_3_0_2": fields 3, 4, 5 (from 0) are set, figure, question.
        categories: the rows' `l2-category`.
        correct: whether each answer was read and right.
    """
    figures, questions = _hallusion_groups(indices, categories)
    singles = ((row,) for row in range(len(indices)))
    return Hallusion(_all_right(singles, correct), _all_right(figures, correct), _all_right(questions, correct))


def _hallusion_groups(indices: Sequence[str], categories: Sequence[str]) -> tuple[list[tuple], list[tuple]]:
    figures, questions = [], []
    for index, category in zip(indices, categories, strict=True):
        fields = str(index).split("_")
        if len(fields) < 6:
            raise ValueError(f"HallusionBench index {index!r}: expected at least 6 fields joined by '_'")
        figures.append((category, fields[3], fields[4]))
        questions.append((category, fields[3], fields[5]))
    return figures, questions


class OpenMatch(NamedTuple):
    """How an open answer compares with its reference, by strings alone: OPEN_LABEL, never an MMVet score."""

    exact: bool
    recall: float


def open_match(prediction: str, answer: str) -> OpenMatch:
    """Compare an open answer with a reference in MMVet's notation: `a<AND>b` needs both, `a<OR>b` either.

    Our own rule, no published protocol: texts are lower-cased and reduced to words; `exact` where the prediction equals
    one alternative; `recall` is the share of <AND> parts of which some alternative stands in the prediction as whole
    words. Where both occur, <OR> binds tighter. Recall cannot see negation ("not 5" holds "5").
    """
    said = _words(prediction)
    parts = [[_words(choice) for choice in part.split("<OR>")] for part in answer.split("<AND>")]
    if not all(choice for part in parts for choice in part):
        raise ValueError(f"reference answer {answer!r} has an empty alternative, which any prediction would match")
    found = [any(f" {choice} " in f" {said} " for choice in part) for part in parts]
    return OpenMatch(exact=len(parts) == 1 and said in parts[0], recall=sum(found) / len(found))


def _words(text: str) -> str:
    """Lower-cased words and numbers (a leading minus, decimals and thousands kept whole), joined by single spaces."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.lower())
    return " ".join(re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?|\w+|[^\w\s.,;:!?\"'()*#`\[\]{}/\\-]", text))


def chance(choices: Iterable[int]) -> float:
    """What uniform guessing scores over rows with these numbers of candidates or options: the mean of 1 / n."""
    choices = list(choices)
    if not choices or min(choices) < 1:
        raise ValueError("every row needs at least one candidate, and there must be rows")
    return sum(1 / n for n in choices) / len(choices)


def chance_circular(indices: Sequence[int], options: Sequence[int]) -> float:
    """`chance` under `circular_groups`, each rotation guessed anew: the mean over questions of the product of 1 / n.

    A question without options (n = 0: an open one of MMMU) cannot be guessed.
    """
    products: dict[int, float] = defaultdict(lambda: 1.0)
    for index, n in zip(indices, options, strict=True):
        products[index % ROTATION] *= chance([n]) if n else 0.0
    if not products:
        raise ValueError("no rows to score")
    return sum(products.values()) / len(products)


def chance_hallusion(indices: Sequence[str], categories: Sequence[str]) -> float:
    """What fair coins score as `Hallusion.mean`: 0.5 per question, 0.5 ** size per figure or question group."""
    if not indices:
        raise ValueError("no rows to score")
    terms = [CHANCE_YES_NO]
    for groups in _hallusion_groups(indices, categories):
        sizes = np.unique([repr(group) for group in groups], return_counts=True)[1]
        terms.append(float(np.mean(0.5**sizes)))
    return sum(terms) / 3
