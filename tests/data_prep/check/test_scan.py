"""What a scan of rows says, against the job's own worker on the same rows."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from data_prep.check.scan import Findings, Look, scan, tokens_at_most
from data_prep.encode import Encoder, EncodeSettings
from data_prep.job import make_shard, plan
from data_prep.samples import RawSample, Side, Turn
from data_prep.sources import discover
from tests.data_prep.check.corpora import talk


def by_scan(root: Path, look: Look) -> dict[str, Findings]:
    found: dict[str, Findings] = {}
    for part in discover(root):
        found.setdefault(part.source, Findings()).join(scan(part, 0, part.rows, look))
    return found


def by_job(root: Path, checkpoint: Path, encode: EncodeSettings, out: Path) -> dict[str, int]:
    """Rows that the job's own worker sets aside, by source."""
    out.mkdir()
    counts: dict[str, int] = {}
    for piece in plan(discover(root), 4):
        record = make_shard(piece, str(checkpoint), encode, out)
        counts[piece.part.source] = counts.get(piece.part.source, 0) + len(record.rejected)
    return counts


def test_the_job_sets_the_same_rows_aside(bad: Path, checkpoint: Path, tmp_path: Path) -> None:
    found = by_scan(bad, Look(checkpoint=str(checkpoint)))
    aside = {name: findings.aside for name, findings in found.items()}
    assert aside == {"mmeb_train/Bad": 7, "mmeb_train/Good": 0, "sharegpt4v/bad": 2, "sharegpt4v/talk": 0}
    assert aside == by_job(bad, checkpoint, EncodeSettings(), tmp_path / "shards")
    assert found["mmeb_train/Bad"].reasons == {
        "missing": 1, "broken": 2, "format": 1, "outside_root": 1, "not_a_file": 1, "empty_side": 1,
    }  # fmt: skip


def test_only_a_checkpoint_knows_lengths(good: Path, checkpoint: Path, tmp_path: Path) -> None:
    (good / "chats" / "talk.json").write_text(json.dumps([talk("", "x" * 300, "y" * 300)]))
    for limit, aside in ((900, 0), (40, 1)):
        look = Look(checkpoint=str(checkpoint), encode=(("max_tokens", limit),), max_tokens=limit)
        assert by_scan(good / "chats", look)["sharegpt4v/talk"].aside == aside
        job = by_job(good / "chats", checkpoint, EncodeSettings(max_tokens=limit), tmp_path / str(limit))
        assert job["sharegpt4v/talk"] == aside


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.lists(st.tuples(st.text("ab \u732b<|im_end>"), st.text("xy\n")), max_size=4))
def test_no_sequence_is_longer_than_its_bound(encoder: Encoder, text: str, turns: list[tuple[str, str]]) -> None:
    row = RawSample("r", "s", Side(text), tuple(Turn(*turn) for turn in turns))
    assert len(encoder.sequence(row.query, row.turns)) <= tokens_at_most(row.query, row)
