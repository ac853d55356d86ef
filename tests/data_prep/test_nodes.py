"""More than one node: one dies and the job completes; the cluster file is what Ray expects."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from data_prep.cluster import ray  # not Ray itself: what it reads at import is set there
from data_prep.job import PrepareSettings, prepare
from data_prep.shards import load_manifest, verify_shards
from tests.data_prep.processes import killer_of_node

PROJECT = Path(__file__).parents[2]


def test_the_cluster_file_is_valid() -> None:
    """By Ray's own check of such files; no machine is asked."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((PROJECT / "launchers" / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    starts = [" ".join(config[f"{kind}_start_ray_commands"]) for kind in ("head", "worker")]
    assert all("RAY_AUTH_MODE=token" in start for start in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple]:
    """A head with one CPU and a second node with one, each with a raylet of its own, on loopback; RAY_ADDRESS names them."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # for good, as the job itself does: Ray reads it once a process
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes, second
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.slow
def test_a_node_dies_and_the_job_completes(two_nodes: tuple, corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    """The second node is killed, raylet and all, while a worker of its own makes a shard."""
    nodes, second = two_nodes
    settings = PrepareSettings(roots=(corpus,), checkpoint=str(checkpoint), out=tmp_path / "shards", rows_per_shard=1)
    with killer_of_node(nodes, second) as killed:
        manifest = prepare(settings)
    assert len(killed) == 1, "the node was not met while it worked"
    verify_shards(settings.out, manifest)
    assert manifest.rows == 30
    alive = prepare(settings.model_copy(update={"out": tmp_path / "again", "workers": 1}))
    assert alive.digest() == manifest.digest() == load_manifest(tmp_path / "again").digest()
