"""Words of a launch: counted, compared, completed."""

from pathlib import Path

import pytest

from data_prep.samples import DataError
from pipeline.supervise.command import check


@pytest.fixture
def hosts(tmp_path) -> str:
    path = tmp_path / "hosts"
    path.write_text("worker-1 slots=8\nworker-2 slots=4\n")
    return str(path)


def launch(text: str, hosts: str = ""):
    return check([hosts if word == "HOSTS" else word for word in text.split()])


@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        ("deepspeed --hostfile HOSTS launchers/train.sh tiny", 12),
        ("deepspeed -H HOSTS --num_nodes 1 launchers/train.sh tiny", 8),
        ("deepspeed --hostfile=HOSTFILE --num_gpus 2 launchers/train.sh tiny", 4),
        ("deepspeed --hostfile HOSTS --no_ssh --node_rank 1 --master_addr a launchers/train.sh tiny", 12),
        ("deepspeed --num_gpus 2 launchers/train.sh tiny", 2),
        ("torchrun --nproc-per-node 2 launchers/train.sh tiny", 2),
        ("torchrun --nnodes=2 --nproc_per_node=4 launchers/train.sh tiny", 8),
    ],
)
def test_ranks_are_counted_and_said(hosts, words, ranks):
    found = launch(words.replace("=HOSTFILE", f"={hosts}"), hosts)
    assert found.trainer == ("tiny", "--ranks", str(ranks))


@pytest.mark.parametrize("launcher", ["deepspeed", "bash", "torchrun --nproc-per-node gpu"])
def test_ranks_that_cannot_be_counted_are_left_alone(launcher):
    assert launch(f"{launcher} launchers/train.sh tiny").trainer == ("tiny",)


def test_which_machines(hosts):
    pdsh = launch("deepspeed --hostfile HOSTS launchers/train.sh", hosts)
    alone = launch("deepspeed --hostfile HOSTS --num_nodes 1 launchers/train.sh", hosts)
    each = launch("deepspeed --hostfile HOSTS --no_ssh --node_rank 0 launchers/train.sh", hosts)
    elastic = launch("torchrun --nnodes 2 --nproc-per-node 1 launchers/train.sh")
    assert [found.several_machines for found in (pdsh, alone, each, elastic)] == [True, False, False, False]
    assert [found.one_of_several for found in (pdsh, alone, each, elastic)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "found 'no command', expected a launcher and its script"),
        ("launchers/train.sh tiny", "expected a launcher and its script"),
        ("deepspeed train.py tiny", "expected a launcher and its script"),
        ("deepspeed --hostfile HOSTS launchers/train.sh tiny --ranks 16", "--ranks 16, but the launcher's options make 12 ranks (worker-1"),
        ("deepspeed --hostfile HOSTS --num_nodes 3 launchers/train.sh tiny", "found --num_nodes 3, but the hostfile names 2"),
        ("deepspeed --hostfile HOSTS --num_gpus 8 launchers/train.sh tiny", "--num_gpus 8, but the hostfile has worker-2 slots=4"),
        ("deepspeed --hostfile HOSTS --include worker-1 launchers/train.sh tiny", "expected --ranks beside it"),
        ("deepspeed --hostfile nowhere launchers/train.sh tiny", "hostfile nowhere: found no readable file"),
        ("deepspeed --num_gpus two launchers/train.sh tiny", "the launcher's options: argument --num_gpus"),
        ("deepspeed --num_gpus 2 launchers/train.sh tiny --ranks 4", "--ranks 4, but the launcher's options make 2 ranks; nothing"),
    ],
)
def test_faults(hosts, words, said):
    with pytest.raises(DataError) as error:
        launch(words, hosts)
    assert said in str(error.value) and "nothing was started" in str(error.value)


def test_a_wrong_setting_of_the_trainer_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        launch("deepspeed launchers/train.sh tiny --stepps 3")
    assert ended.value.code == 2


def test_the_command(hosts):
    found = launch("deepspeed --num_gpus 2 launchers/train.sh tiny --steps 5")
    start = ["deepspeed", "--num_gpus", "2", "launchers/train.sh", "tiny", "--steps", "5", "--ranks", "2"]
    assert found.command(Path("/out/jobs/x"), resume=False) == [*start, "--job=/out/jobs/x"]
    assert found.command(Path("/out/jobs/x"), resume=True) == [*start, "--resume", "auto", "--job=/out/jobs/x"]
    again = launch("deepspeed launchers/train.sh tiny --resume")
    assert again.command(Path("/j"), resume=True).count("--resume") == 1
