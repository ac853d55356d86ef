"""A folder that means the same to all processes of a job."""

from pathlib import Path

import pytest

from data_prep.place import absolute_out
from data_prep.samples import DataError


def test_alone_a_relative_folder_is_below_the_working_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert absolute_out(Path("work/eval")) == tmp_path / "work/eval" and absolute_out(Path("/data")) == Path("/data")


def test_on_a_cluster_it_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert absolute_out(Path("/data")) == Path("/data")
    with pytest.raises(DataError, match=r"^--out work/eval: found a relative path on a Ray cluster, .*; expected an absolute path"):
        absolute_out(Path("work/eval"))
