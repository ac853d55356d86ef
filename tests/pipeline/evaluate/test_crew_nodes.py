"""The crew on more than one node: a node dies while it computes, and the evaluation ends with the bytes of an undisturbed one."""

import pytest

from pipeline.evaluate.crew import Crew
from tests.data_prep.processes import killer_of_node
from tests.data_prep.test_nodes import two_nodes  # noqa: F401 - a fixture: two nodes on loopback, one CPU each
from tests.pipeline.evaluate.test_crew import data, evaluate, made, small_units, straight  # noqa: F401 - fixtures


@pytest.mark.slow
def test_a_node_dies_and_the_evaluation_completes(straight, two_nodes, checkpoint, data, made, tmp_path) -> None:  # noqa: F811
    """The second node is killed, raylet and all, while a worker of its own computes."""
    nodes, second = two_nodes
    with killer_of_node(nodes, second, b"ray::Worker.work") as killed:
        assert evaluate(checkpoint, data, tmp_path / "out", crew=Crew(2)) == straight[1]
    assert len(killed) == 1, "the node was not met while it worked"
    assert made == [], "this process computed nothing itself"
