"""What a hostfile may say. Every fault has a message that says where it is and what to do."""

import pytest

from data_prep.samples import DataError
from pipeline.supervise.hostfile import read


def test_machines_in_their_order(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# two nodes\nworker-1 slots=8\n\n  10.0.0.7   slots=4  \n")
    assert list(read(path).items()) == [("worker-1", 8), ("10.0.0.7", 4)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "found no readable file"),
        ("", "found no machine"),
        ("# worker-1 slots=8\n", "found no machine"),
        ("worker-1\n", "line 1: found 'worker-1', expected `name slots=8`"),
        ("worker-1 slots=8\nworker-2 slots=\n", "line 2: found 'worker-2 slots='"),
        ("worker-1 slots=8 max_slots=9\n", "line 1: found 'worker-1 slots=8 max_slots=9'"),
        ("worker-1 slots=-8\n", "line 1: found 'worker-1 slots=-8'"),
        ("worker-1 slots=0\n", "line 1: found slots=0, expected a rank or more"),
        ("worker-1 slots=8\nworker-2 slots=8\nworker-1 slots=8\n", "line 3: found worker-1 again"),
        ("work;er-1 slots=8\n", "line 1: found 'work;er-1 slots=8'"),
        ("-w slots=8\n", "line 1: found '-w slots=8'"),
    ],
)
def test_faults(tmp_path, text, said):
    path = tmp_path / "hosts"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as error:
        read(path)
    assert said in str(error.value) and "nothing was started" in str(error.value)
