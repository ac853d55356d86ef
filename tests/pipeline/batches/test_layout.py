"""Where chorus and answers stand in packed rows."""

import pytest
import torch

from data_prep.schema import Role
from pipeline.batches.layout import answer_index, chorus_index

V, U, Q, A = Role.CONTEXT, Role.CHORUS, Role.PROMPT, Role.ANSWER
ROLES = torch.tensor([[V, U, U, Q, A, A, V, U, U], [V, V, U, U, Q, A, Q, A, V]], dtype=torch.uint8)
DOCUMENTS = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2, 2, -1]])


def test_chorus_index() -> None:
    assert chorus_index(ROLES, DOCUMENTS, 3).tolist() == [[1, 2], [7, 8], [11, 12]]


def test_answer_index() -> None:
    """Each answer token is predicted from the token before it, the first one from the prompt."""
    assert answer_index(ROLES, DOCUMENTS).tolist() == [3, 4, 13, 15]


def test_an_answer_is_not_predicted_from_another_document() -> None:
    roles = torch.tensor([[U, A, A]], dtype=torch.uint8)
    assert answer_index(roles, torch.tensor([[0, 1, 1]])).tolist() == [1]


@pytest.mark.parametrize(("documents", "sequences"), [([0, 0, 1], 2), ([0, 0, 0], 2)])
def test_unequal_choruses_are_refused(documents: list, sequences: int) -> None:
    with pytest.raises(ValueError, match="expected the same number in each"):
        chorus_index(torch.full((1, 3), U, dtype=torch.uint8), torch.tensor([documents]), sequences)
