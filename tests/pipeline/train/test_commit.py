"""Checkpoint folders: what is committed, refused, set aside and pruned. Pure file work; with real ranks: `test_survival`."""

import random

import pytest

from data_prep.samples import DataError
from pipeline.train import commit
from pipeline.train.checkpoint import newest_whole
from pipeline.train.saver import Keep, best


def make(root, step: int, figure: float | None = None):
    """A committed checkpoint of two files."""
    temporary = commit.new_temporary(root, step)
    for name in ("a.pt", "state/b.pt"):
        (temporary / name).parent.mkdir(exist_ok=True)
        (temporary / name).write_bytes(f"{name} of step {step}".encode())
    figures = {} if figure is None else {"loss/total": figure}
    manifest = {"step": step, "figures": figures, "files": commit.flush(temporary, ["a.pt", "state/b.pt"])}
    commit.commit(temporary, root / commit.folder_name(step), manifest)
    return root / commit.folder_name(step)


def test_what_is_committed_is_read(tmp_path):
    folder = make(tmp_path, 7)
    assert folder.name == "step-00000007"
    assert commit.read(folder) == {
        "step": 7,
        "figures": {},
        "files": {
            "a.pt": "148637ff31be93726c5aa6b12f6482694c1f06aac2a4e3a2ad89ce1674f0053f",
            "state/b.pt": "5f25e4c88b08f502d958a6faf167ecdb797a01a86ea5ac663ca84e4cb16c6e78",
        },
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000007"]


@pytest.mark.parametrize("extra", ["stray.pt", "state/stray.pt"])
def test_a_file_without_a_digest_is_not_committed(tmp_path, extra):
    temporary = commit.new_temporary(tmp_path, 7)
    (temporary / "state").mkdir()
    (temporary / extra).write_bytes(b"x")
    with pytest.raises(OSError, match="is there without a digest, or not there"):
        commit.commit(temporary, tmp_path / "step-00000007", {"step": 7, "files": {}})
    assert commit.newest(tmp_path) is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "a.pt").write_bytes(b"a.pt of step 8"), "a.pt: found other bytes than the manifest says"),
        (lambda f: (f / "a.pt").unlink(), "a.pt: found that it is missing"),
        (lambda f: (f / "state/latest").write_text("step"), "latest: found a file that the manifest does not name"),
        (lambda f: ((f / "a.pt").rename(f.parent / "x"), (f / "a.pt").symlink_to(f.parent / "x")), "a.pt: found a link or a special file"),
        (lambda f: (f / "manifest.json").unlink(), "found no readable manifest"),
        (lambda f: (f / "manifest.json").write_text("[]"), "found no readable manifest"),
        (lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text().replace("7", "9")), "another manifest than the one"),
        (lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text() + "\n"), "another manifest than the one"),
    ],
)
def test_what_was_altered_is_refused_and_named(tmp_path, damage, message):
    folder = make(tmp_path, 7)
    damage(folder)
    with pytest.raises(DataError, match=f"{message}.*expected the checkpoint as it was committed, so nothing was loaded"):
        commit.read(folder)


def test_a_renamed_checkpoint_is_refused(tmp_path):
    make(tmp_path, 7).rename(tmp_path / "step-00000009")
    with pytest.raises(DataError, match="step-00000009: found the checkpoint of step 7 under another name"):
        commit.read(tmp_path / "step-00000009")


def test_a_checkpoint_without_a_manifest_is_still_the_newest(tmp_path):
    """Had it been passed over, a resume would go on from another step without a word."""
    make(tmp_path, 2)
    (make(tmp_path, 4) / "manifest.json").unlink()
    assert commit.newest(tmp_path).name == "step-00000004"


def test_falling_back_sets_aside_what_is_not_whole(tmp_path):
    for step in (2, 4, 6):
        make(tmp_path, step)
    (tmp_path / "step-00000006/a.pt").write_bytes(b"torn")
    (tmp_path / "step-00000004/manifest.json").unlink()
    said = []
    folder, manifest = newest_whole(tmp_path, said.append)
    assert folder == tmp_path / "step-00000002" and manifest == commit.read(folder) and manifest["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["refused-step-00000004", "refused-step-00000006", "step-00000002"]
    assert len(said) == 2 and "a.pt: found other bytes" in said[0] and "set aside as refused-step-00000006" in said[0]
    assert newest_whole(tmp_path / "nowhere", said.append) is None


def test_the_same_step_once_more_takes_the_place(tmp_path):
    make(tmp_path, 7)
    folder = make(tmp_path, 7, figure=2.5)
    assert commit.read(folder)["figures"] == {"loss/total": 2.5}
    assert commit.committed(tmp_path) == [folder]


def test_leftovers_go_with_the_next_save(tmp_path):
    for name in (".tmp-step-00000003", ".tmp-old-step-00000001"):
        (tmp_path / name / "state").mkdir(parents=True)
    make(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


@pytest.mark.parametrize(("better", "choose"), [("lower", min), ("higher", max)])
def test_pruning_keeps_the_newest_and_the_best(tmp_path, better, choose):
    rng = random.Random(3)
    for run in range(20):
        root, last, figures = tmp_path / str(run), rng.randint(1, 3), {}
        root.mkdir()
        for step in range(1, 9):
            figures[step] = rng.choice([None, rng.random()])
            make(root, step, figures[step])
            commit.prune(root, last, best(root, Keep(last, "loss/total", better)))
            known = [s for s in figures if figures[s] is not None]
            wanted = set(sorted(figures)[-last:]) | ({choose(known, key=figures.get)} if known else set())
            assert {int(path.name[5:]) for path in commit.committed(root)} == wanted


def test_without_a_figure_the_newest_stay(tmp_path):
    for step in (1, 2, 3):
        make(tmp_path, step, figure=float(step))
    commit.prune(tmp_path, 2, best(tmp_path, Keep(2)))
    assert [path.name for path in commit.committed(tmp_path)] == ["step-00000002", "step-00000003"]
