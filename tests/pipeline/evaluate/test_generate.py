"""Decoding from a cache, whole or pruned to the chorus, against full forward passes under the compression mask, for every family."""

import numpy as np
import pytest
import torch

from data_prep.checkpoint import FAMILIES
from data_prep.chorus import keep_chorus
from data_prep.samples import Side, Turn
from data_prep.schema import Role
from data_prep.sequence import TokenSequence
from pipeline.batches.collate import Job
from pipeline.evaluate.generate import Answerer, Context, by_length, split_after_chorus

STEPS = 5


class Recorder(Answerer):
    """An answerer that keeps the logits of each step and what it chose."""

    def _choose(self, logits_BV):
        self.logits.append(logits_BV)
        self.chosen.append(super()._choose(logits_BV))
        return self.chosen[-1]

    def decode(self, sequences, mode):
        """Logits [B, STEPS, V] and chosen tokens [B, STEPS]."""
        self.logits, self.chosen = [], []
        self.answer(sequences, mode, max_new_tokens=STEPS)
        return torch.stack(self.logits, 1)[:, :STEPS], torch.stack(self.chosen, 1)[:, :STEPS]


@pytest.fixture(scope="module", params=FAMILIES)
def kit(request, kit_of):
    """Every test here runs for every family."""
    return kit_of(request.param)


@pytest.fixture(scope="module")
def model(kit):
    """The family's small model."""
    return kit.model


@pytest.fixture(scope="module")
def encoder(kit):
    """The family's encoder."""
    return kit.encoder


@pytest.fixture(scope="module")
def collator(kit):
    """The family's collator."""
    return kit.collator


@pytest.fixture(scope="module")
def recorder(model, collator, encoder) -> Recorder:
    """Never stops: its only stop token is banned."""
    stop = encoder.tokenizer.pad_token_id
    return Recorder(model, collator, encoder.tokenizer, [stop], [stop, *encoder.chorus_ids, encoder.image_id])


@pytest.fixture(scope="module")
def sequences(encoder, picture) -> list[TokenSequence]:
    """Mixed lengths; with and without images, several images, earlier turns."""
    turn = Turn("what colour?", "red.")
    return [
        encoder.sequence(Side(images=(picture(1),)), open_question="how many?"),
        encoder.sequence(Side("a red circle is above the blue square."), open_question="what colour is the circle?"),
        encoder.sequence(Side("look", (picture(2, 112, 56), picture(3), picture(4, 56, 84))), open_question="what is the largest shape?"),
        encoder.sequence(Side("three stars", (picture(5, 84, 84),)), (turn, turn), open_question="are there stars?"),
        encoder.sequence(Side("one grey ring"), open_question="?"),
    ]


def full_forward(model, collator, sequence: TokenSequence, tokens: torch.Tensor, compressed: bool) -> torch.Tensor:
    """Logits that predict `tokens`, from one pass over context, chorus, question and answer."""
    ids = np.concatenate([sequence.ids, tokens.numpy().astype(np.int32)])
    roles = np.concatenate([sequence.roles, np.full(len(tokens), Role.ANSWER, np.uint8)])
    with torch.no_grad():
        hidden = model.hidden(collator([[Job(TokenSequence(ids, roles, sequence.images), compressed)]]))
        return model.backbone.lm_head(hidden[0, len(sequence) - 1 : -1]).float()


@pytest.mark.parametrize("mode", ["native", "compressed"])
def test_every_step_equals_a_full_forward(recorder, model, collator, sequences, mode: str) -> None:
    logits, chosen = recorder.decode(sequences, mode)
    for i, sequence in enumerate(sequences):
        expected = full_forward(model, collator, sequence, chosen[i], compressed=mode == "compressed")
        torch.testing.assert_close(logits[i], expected, atol=1e-5, rtol=1e-5)
        other = full_forward(model, collator, sequence, chosen[i], compressed=mode != "compressed")
        assert (other - expected).abs().max() > 1e-3, "the modes differ"


@pytest.mark.parametrize("mode", ["native", "compressed"])
def test_a_batch_answers_as_one_by_one(recorder, sequences, mode: str) -> None:
    logits, _ = recorder.decode(sequences, mode)
    answers = recorder.answer(sequences, mode, STEPS)
    for i, sequence in enumerate(sequences):
        torch.testing.assert_close(recorder.decode([sequence], mode)[0][0], logits[i], atol=1e-5, rtol=1e-5)
        assert recorder.answer([sequence], mode, STEPS) == [answers[i]]


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("mode", ["native", "compressed"])
def test_fewer_chorus_tokens_equal_a_full_forward_with_as_many(recorder, model, collator, sequences, mode: str, k: int) -> None:
    """Elastic chorus: the cache holds k places, and the positions after it are those of k tokens."""
    short = [keep_chorus(sequence, k) for sequence in sequences]
    logits, chosen = recorder.decode(short, mode)
    for i, sequence in enumerate(short):
        expected = full_forward(model, collator, sequence, chosen[i], compressed=mode == "compressed")
        torch.testing.assert_close(logits[i], expected, atol=1e-5, rtol=1e-5)
    prefixes = [int(np.flatnonzero(sequence.roles == Role.CHORUS)[-1]) + 1 for sequence in short]
    shares = [k / length if mode == "compressed" else 1.0 for length in prefixes]
    assert [answer.cache_share for answer in recorder.answer(short, mode, 1)] == shares


def test_by_length(sequences) -> None:
    batches = list(by_length(sequences, 2))
    lengths = [len(sequences[i]) for batch in batches for i in batch]
    assert lengths == sorted(lengths) and [len(batch) for batch in batches] == [2, 2, 1]
    assert sorted(i for batch in batches for i in batch) == [0, 1, 2, 3, 4]


def test_cache_share(recorder, sequences, kit) -> None:
    """K chorus places of the whole prefix, exactly; all of it natively."""
    prefixes = [int(np.flatnonzero(sequence.roles == Role.CHORUS)[-1]) + 1 for sequence in sequences]
    assert [answer.cache_share for answer in recorder.answer(sequences, "compressed", 1)] == [4 / length for length in prefixes]
    assert [answer.cache_share for answer in recorder.answer(sequences, "native", 1)] == [1.0] * len(sequences)
    context = recorder.read([split_after_chorus(sequence)[0] for sequence in sequences], "compressed")
    assert {tuple(x.shape) for x in context.keys + context.values} == {(len(sequences), 1, 4, 32)}
    assert len(context.keys) == len(context.values) == (3 if kit.family == "qwen3_vl" else 2)


def test_a_stored_context_answers_without_its_images(recorder, collator, sequences) -> None:
    """Only the chorus's keys and values are kept; asking twice changes nothing."""
    split = [split_after_chorus(sequence) for sequence in sequences]
    positions = [collator.positions(sequence)[0, len(prefix) :] for sequence, (prefix, _) in zip(sequences, split, strict=True)]
    questions = [question for _, question in split]
    expected = recorder.answer(sequences, "compressed", STEPS)
    read = recorder.read([prefix for prefix, _ in split], "compressed")
    copies = [[torch.from_numpy(x.numpy().copy()) for x in part] for part in (read.keys, read.values)]
    stored = Context(*copies, read.visible_BC.clone(), read.prefix_lengths)
    assert recorder.continue_from(stored, questions, positions, STEPS) == expected
    assert recorder.continue_from(stored, questions[::-1], positions, STEPS) != expected
    assert recorder.continue_from(stored, questions, positions, STEPS) == expected


def test_split_after_chorus(sequences, encoder) -> None:
    for sequence in sequences:
        prefix, question = split_after_chorus(sequence)
        assert prefix.ids[-4:].tolist() == list(encoder.chorus_ids)
        assert [*prefix.ids, *question] == sequence.ids.tolist()
        assert set(prefix.roles) == {Role.CONTEXT, Role.CHORUS}
        assert prefix.images == sequence.images


@pytest.mark.parametrize("limit", [1, 3])
def test_every_forward_gives_a_token_and_only_its_logits(recorder, model, sequences, monkeypatch, limit: int) -> None:
    """As many passes as tokens, the question's the first of them; the output head sees one state per row."""
    shapes, head = [], model.backbone.lm_head.forward
    monkeypatch.setattr(model.backbone.lm_head, "forward", lambda states: shapes.append(states.shape) or head(states))
    recorder.answer(sequences, "compressed", limit)
    assert shapes == [(len(sequences), model.backbone.config.get_text_config().hidden_size)] * limit


def test_stops_and_says_so(recorder, model, collator, encoder, sequences) -> None:
    """Each row ends at its own stop token, which is not part of the answer; a row without one runs into the limit."""
    _, chosen = recorder.decode(sequences, "native")
    stop = int(chosen[0, 1])
    answers = Answerer(model, collator, encoder.tokenizer, [stop], recorder.banned_ids.tolist()).answer(sequences, "native", STEPS)
    for answer, tokens in zip(answers, chosen.tolist(), strict=True):
        kept = tokens[: tokens.index(stop)] if stop in tokens else tokens
        assert answer.text == encoder.tokenizer.decode(kept, skip_special_tokens=True).strip()
        assert answer.finished == (stop in tokens)
    assert answers[0].finished


def test_banned_tokens_are_never_said(recorder, model, collator, encoder, sequences) -> None:
    _, chosen = recorder.decode(sequences, "compressed")
    banned = sorted(set(chosen.flatten().tolist()))
    other = Recorder(model, collator, encoder.tokenizer, recorder.stop_ids.tolist(), [*banned, *recorder.banned_ids.tolist()])
    assert not set(other.decode(sequences, "compressed")[1].flatten().tolist()) & set(banned)
