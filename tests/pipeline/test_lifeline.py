"""Which processes are launchers; a rank that ends with the ones above it. DeepSpeed's real ones: supervise/test_kills.py."""

import pytest

from pipeline.lifeline import hold, is_launcher


@pytest.mark.parametrize(
    "line",
    [
        "/env/bin/python3.11 /env/bin/deepspeed --num_gpus 2 train.sh",
        "deepspeed train.sh",
        "/env/bin/python -u -m deepspeed.launcher.launch --world_info=x train.sh",
        "python -m deepspeed.launcher.runner --num_gpus 2 train.sh",
        "/env/bin/python /env/bin/torchrun --nproc-per-node 2 train.sh",
        "python -m torch.distributed.run train.sh",
        "python -m pipeline.supervise deepspeed train.sh",
    ],
)
def test_launchers(line):
    assert is_launcher(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "bash",
        "bash launchers/train.sh tiny",
        "python -m pytest",
        "vim a b deepspeed",
        "python -u train.sh --local_rank=0 -m x",
        "sshd: crem",
    ],
)
def test_others_may_go(line):
    assert not is_launcher(line.split())


def test_without_a_launcher_nothing_is_held():
    assert hold() == []
