"""More than one node: one dies and the job completes; the cluster file is what Ray expects."""

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from data_prep.cluster import actors_as_finished, cluster, ray  # not Ray itself: what it reads at import is set there
from data_prep.job import PrepareSettings, prepare
from data_prep.shards import load_manifest, verify_shards
from tests.data_prep.processes import killer_of_node, wait_until

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


class Large:
    """Results of a size that Ray leaves on the node where they were made; on node `slow` they take a second."""

    def __init__(self, folder: Path, slow: str):
        self.folder, self.slow = folder, slow

    def work(self, item: int) -> tuple[int, bytes]:
        if (node := ray.get_runtime_context().get_node_id()) == self.slow:
            time.sleep(1)  # so that the other's first result is fetched alone
        (self.folder / f"{item}-{node}").touch()
        return item, bytes(300_000)


@pytest.mark.slow
def test_a_result_that_was_lost_with_its_node_is_made_again(two_nodes: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second node is killed when it has done an item whose result nobody has fetched."""
    nodes, second = two_nodes
    lost, fetch = [], ray.get

    def get(reference):
        try:
            return fetch(reference)
        except ray.exceptions.ObjectLostError:
            lost.append(reference)
            raise

    def unfetched(done: list) -> bool:
        there = {int(path.name.split("-")[0]) for path in tmp_path.glob(f"*-{second.node_id}")}
        return bool(there - set(done))

    with cluster(2):
        results = actors_as_finished(Large, list(range(8)), (tmp_path, second.node_id), 2)
        monkeypatch.setattr(ray, "get", get)
        done = [next(results)[0]]
        assert wait_until(lambda: unfetched(done), 60)
        time.sleep(2)  # it is about to return: in that time it has
        nodes.remove_node(second, allow_graceful=False)
        for item, (number, data) in results:
            assert item == number and len(data) == 300_000
            done.append(item)
    assert lost, "the result was fetched before the node died"
    assert sorted(done) == list(range(8))
