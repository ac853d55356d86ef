"""Which targets say or show the same as a positive."""

from data_prep.samples import ImageRef, RawSample, Side
from pipeline.mine.corpus import Corpus, Sameness


def picture(name: str, text: str = "") -> Side:
    return Side(text, (ImageRef(name),))


def sameness(
    pairs: list[tuple[Side, Side]], pixels: dict[str, str] | None = None, negatives: tuple[Side, ...] = ()
) -> tuple[Corpus, Sameness]:
    """Pairs as a corpus; the digest of a picture is its name, unless `pixels` names another."""
    rows = tuple(RawSample(f"s/{i}", "s", query, positive=positive, negatives=negatives) for i, (query, positive) in enumerate(pairs))
    targets = dict.fromkeys(positive for _, positive in pairs)
    sides = tuple(targets | dict.fromkeys(query for query, _ in pairs))
    digests = [tuple((pixels or {}).get(image.name, image.name) for image in side.images) for side in sides]
    corpus = Corpus(rows, sides, len(targets))
    return corpus, Sameness(corpus, digests)


def test_the_same_text_and_every_positive_of_the_same_query() -> None:
    targets = ["A dog.", "a DOG", "a cat", "a bird"]
    queries = ["what?", "who?", "what", "where?"]  # the first and the third ask the same
    corpus, same = sameness([(Side(q), Side(t)) for q, t in zip(queries, targets, strict=True)])
    assert [same.never(row) for row in corpus.rows] == [{0, 1, 2}, {0, 1}, {0, 1, 2}, {3}]


def test_the_same_picture_wherever_its_file_lies() -> None:
    pairs = [(Side(f"caption {i}"), picture(f"{i}.png", "Represent the given image.")) for i in range(4)]
    corpus, same = sameness(pairs, pixels={"3.png": "0.png"})
    assert [same.never(row) for row in corpus.rows] == [{0, 3}, {1}, {2}, {0, 3}]


def test_a_picture_of_the_query_is_no_negative() -> None:
    pairs = [(picture("a", "find alike"), picture("b", "given")), (picture("b", "find alike"), picture("a", "given"))]
    pairs += [(picture("c", "find alike"), picture("d", "given"))]
    corpus, same = sameness(pairs)
    assert [same.never(row) for row in corpus.rows] == [{0, 1}, {0, 1}, {2}]


def test_a_caption_beside_two_pictures_is_a_meaning_and_an_instruction_is_not() -> None:
    captions = ["one tower", "one tower", "a lake", "a field", "a road", "a hill"]
    corpus, same = sameness([(Side(f"q {i}"), picture(f"{i}", caption)) for i, caption in enumerate(captions)])
    assert [same.never(row) for row in corpus.rows] == [{0, 1}, {0, 1}, {2}, {3}, {4}, {5}]
    corpus, same = sameness([(Side(f"q {i}"), picture(f"{i}", "Represent the given image.")) for i in range(6)])
    assert [same.never(row) for row in corpus.rows] == [{i} for i in range(6)]


def test_texts_without_words_are_compared_as_they_stand() -> None:
    corpus, same = sameness([(Side("a"), Side("+")), (Side("b"), Side("-")), (Side("c"), Side("+ "))])
    assert [same.never(row) for row in corpus.rows] == [{0}, {1}, {2}]


def test_negatives_that_a_row_has_already_are_not_mined_again() -> None:
    corpus, same = sameness([(Side("a"), Side("x")), (Side("b"), Side("y")), (Side("c"), Side("z"))], negatives=(Side("z"), Side("other")))
    assert [same.never(row) for row in corpus.rows] == [{0, 2}, {1, 2}, {2}]
