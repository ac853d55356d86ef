"""The compression benchmark: every way decodes the same prompts, shares are exact, ratios are taken within a round."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.benchmarks.compression.prompts import Prompts, open_model, text_prefix, write_checkpoint, write_prompts
from tests.benchmarks.compression.tables import main_table, ratio, share_line, sweep_table, verdicts
from tests.benchmarks.compression.ways import COMPRESSED, HUGGING_FACE, NATIVE, STORED, Timing, check_share, swept, ways

NEW = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compression")


@pytest.fixture(scope="module")
def model(folder):
    return open_model(write_checkpoint("2M", folder), 12)


@pytest.fixture(scope="module")
def prompts(model, folder) -> Prompts:
    return write_prompts(model, 2, 12, folder)


def test_every_way_decodes_the_same_prompts(model, prompts) -> None:
    stock = AutoModelForImageTextToText.from_pretrained(model.checkpoint, dtype=torch.float32, attn_implementation="sdpa").eval()
    timings = {name: way(NEW) for name, way in ways(model.opened, stock, prompts).items()}
    assert list(timings) == [HUGGING_FACE, NATIVE, COMPRESSED, STORED]
    for timing in timings.values():
        assert timing.tokens.shape == (2, NEW) and len(timing.stamps) == 1 + NEW  # the start, then a stamp for every token
    tokens = {name: timing.tokens.tolist() for name, timing in timings.items()}
    assert tokens[NATIVE] == tokens[HUGGING_FACE] and tokens[COMPRESSED] == tokens[STORED]
    assert tokens[NATIVE] != tokens[COMPRESSED]
    # 2 prompts, 4 layers, keys and values, 2 heads of 32 numbers of 4 bytes: 4096 bytes a place
    native, kept = 4096 * prompts.prefix, 4096 * 16
    assert [timing.cache_bytes for timing in timings.values()] == [native, native, kept, kept]


def test_the_picture_has_the_tokens_asked_for(model, prompts) -> None:
    assert (prompts.whole == model.opened.encoder.image_id).sum(1).tolist() == [12, 12]  # 3 x 4
    assert prompts.whole.shape[1] == prompts.prefix + len(prompts.questions[0])


def test_a_share_that_is_not_exact_is_an_error(model, prompts) -> None:
    context = model.opened.answerer.read(prompts.prefixes, "compressed")
    check_share(context, "compressed", prompts)
    with pytest.raises(AssertionError, match="native: found shares"):
        check_share(context, "native", prompts)


def test_a_text_prefix_has_exactly_its_length(model) -> None:
    sequence, _ = text_prefix(model.opened.encoder, 128)
    assert len(sequence) == len(sequence.roles) == 128
    assert sequence.ids[-16:].tolist() == list(model.opened.encoder.chorus_ids)
    with pytest.raises(ValueError, match="prefix of 20 tokens: found"):
        text_prefix(model.opened.encoder, 20)


def test_the_sweep_repeats_one_context_over_the_batch(model) -> None:
    for way in swept(model.opened, 128, 3).values():
        tokens = way(NEW).tokens.tolist()
        assert len(tokens) == 3 and tokens[0] == tokens[1] == tokens[2]


def test_first_token_and_rate_come_from_the_stamps() -> None:
    timing = Timing(clock=lambda: 0.0, stamps=[1.0, 3.0, 3.5, 3.75, 4.5], tokens=torch.zeros(8, 4))
    assert (timing.first, timing.rate) == (2.0, 16.0)  # gaps 0.5, 0.25, 0.75


def run(first: float, rate: float, others: float = 0.0) -> dict[str, float]:
    return {"first": first, "rate": rate, "bytes": 4096.0, "same": 1.0, "others": others}


def slow_and_fast(stored: float = 0.05, others: float = 0.0) -> list[dict[str, dict[str, float]]]:
    """The same machine at three speeds."""
    return [
        {
            HUGGING_FACE: run(s * 1.2, 80 / s, others),
            NATIVE: run(s, 100 / s),
            COMPRESSED: run(s, 150 / s),
            STORED: run(s * stored, 200 / s),
        }
        for s in (1.0, 5.0, 2.0)
    ]


def words(line: str) -> str:
    """The line with one space between words."""
    return " ".join(line.split())


def test_ratios_are_taken_within_a_round() -> None:
    assert ratio(slow_and_fast(), NATIVE, STORED, "first") == pytest.approx(20)
    row = next(line for line in main_table({2: slow_and_fast(others=0.5)}) if line.startswith(STORED))
    # ms (low - high) sooner tokens/s (low - high) x HF x native KiB same others
    assert words(row.removeprefix(STORED)) == "2 100.0 (50.0 - 250.0) 20.00x 100.0 (40.0 - 200.0) 2.50x 2.00x 2.0 100% 0.00"
    assert main_table({2: slow_and_fast(others=0.5)})[1].endswith("0.50*")


def test_share_line() -> None:
    assert share_line(16, 1024) == "cache kept: 16 of 1024 places, 1.56%"


def test_sweep_table() -> None:
    assert words(sweep_table({(4096, 8): slow_and_fast()})[1]) == "4096 8 50.0 75.0 1.50x (1.50 - 1.50) 0.00"


def test_verdicts_say_met_and_missed() -> None:
    good, bad = slow_and_fast(), slow_and_fast(stored=0.2)
    assert [line.split()[0] for line in verdicts({1: good}, {(128, 1): good})] == ["met", "met", "met"]
    first, *rest = verdicts({1: good, 8: bad}, {})
    assert first.startswith("MISSED") and first.endswith("5.00x at the least") and len(rest) == 1
    for runs in good:
        runs[COMPRESSED]["rate"] = 0.9 * runs[NATIVE]["rate"]
    assert [line.split()[0] for line in verdicts({1: good}, {(128, 1): good})] == ["met", "MISSED", "MISSED"]
