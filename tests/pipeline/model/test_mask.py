"""The mask against its definition, token pair by token pair."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.schema import Role
from pipeline.model.mask import compression_mask

V, U, Q, A = Role.CONTEXT, Role.CHORUS, Role.PROMPT, Role.ANSWER


def by_definition(roles: list[int], documents: list[int], compressed: list[bool]) -> list[list[bool]]:
    """M[i, j] = 0 if z and i in (Q, A) and j in (V, T); otherwise causal within the document."""
    out = [[False] * len(roles) for _ in roles]
    for i in range(len(roles)):
        for j in range(len(roles)):
            hidden = compressed[i] and roles[i] in (Q, A) and roles[j] == V
            out[i][j] = j <= i and documents[i] == documents[j] and not hidden
    return out


def test_eight_tokens() -> None:
    """Two of context, one of chorus, one of prompt, one of answer (z = 1); then context and chorus of another, and padding."""
    roles = torch.tensor([[V, V, U, Q, A, V, U, V]], dtype=torch.uint8)
    documents = torch.tensor([[0, 0, 0, 0, 0, 1, 1, -1]])
    compressed = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    assert compression_mask(roles, documents, compressed)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]


documents_of_a_row = st.lists(st.tuples(st.lists(st.sampled_from(list(Role)), min_size=1, max_size=8), st.booleans()), max_size=4)


@given(st.lists(documents_of_a_row, min_size=1, max_size=3), st.integers(0, 3))
@settings(max_examples=300)
def test_equals_its_definition(rows: list, padding: int) -> None:
    width = max(sum(len(roles) for roles, _ in row) for row in rows) + padding or 1
    roles = torch.zeros(len(rows), width, dtype=torch.uint8)
    documents = torch.full((len(rows), width), -1)
    compressed = torch.zeros(len(rows), width, dtype=torch.bool)
    for r, row in enumerate(rows):
        start = 0
        for number, (own, z) in enumerate(row):
            place = slice(start, start := start + len(own))
            roles[r, place], documents[r, place], compressed[r, place] = torch.tensor(own, dtype=torch.uint8), number, z
    mask = compression_mask(roles, documents, compressed)
    assert mask.shape == (len(rows), 1, width, width)
    for r in range(len(rows)):
        assert mask[r, 0].tolist() == by_definition(roles[r].tolist(), documents[r].tolist(), compressed[r].tolist())
    assert mask.any(-1).all(), "a token that sees nothing turns into NaN"
