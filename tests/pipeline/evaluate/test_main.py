"""The evaluation command at a chosen k: what it reports, and what it refuses before any work."""

import base64
import json

import numpy as np
import pytest

from data_prep.samples import Side
from data_prep.schema import Role
from data_prep.sources.benchmarks import load_benchmark
from pipeline.evaluate.__main__ import main, score


@pytest.fixture
def tsv(picture, tmp_path):
    """Three open questions about pictures of different sizes."""
    rows = [f"{i}\t{base64.b64encode(picture(i, 56 + 28 * i).data).decode()}\thow many?\tthree" for i in range(3)]
    path = tmp_path / "Open.tsv"
    path.write_text("\n".join(["index\timage\tquestion\tanswer", *rows]) + "\n")
    return path


@pytest.mark.parametrize(("k", "fact"), [(1, "1 of 4"), (3, "3 of 4"), (None, "4 of 4")])
def test_scores_at_k(checkpoint, encoder, tsv, tmp_path, k, fact) -> None:
    short = encoder.shortened(k)
    benchmark = load_benchmark(tsv)
    result = score(str(checkpoint), short, [], [benchmark], tmp_path / "out")
    assert result.facts["chorus tokens"] == fact
    lengths = [int(np.flatnonzero(short.sequence(Side(images=row.images)).roles == Role.CHORUS)[-1]) + 1 for row in benchmark.rows]
    shares = [(k or 4) / length for length in lengths]
    lines = [json.loads(line) for line in (tmp_path / "out/predictions/Open.compressed.jsonl").read_text().splitlines()]
    assert [line["cache_share"] for line in lines] == shares
    native, compressed = result.answers
    assert (native.cache_share, compressed.cache_share) == (1.0, pytest.approx(sum(shares) / 3))


@pytest.mark.parametrize("k", ["0", "5"])
def test_a_k_that_the_checkpoint_does_not_have(checkpoint, tsv, tmp_path, capsys, k) -> None:
    assert main([str(checkpoint), "--benchmarks", str(tsv), "--k", k, "--out", str(tmp_path / "out")]) == 2
    assert f"error: k = {k}: found a checkpoint of 4 chorus tokens; expected 1 to 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
