"""Restored data sets on a Ray cluster of two nodes, one of which dies: real raylets on loopback, a command that joins them."""

import os
import subprocess
import time
from importlib.util import find_spec

import pytest

pytest.importorskip("torch", reason="needs the export extra")
if find_spec("ray") is None or find_spec("pandas") is None:  # found, not imported: how Ray listens is decided as it is imported
    pytest.skip("needs the ray extra", allow_module_level=True)

from support.command import COMMAND
from support.processes import children, command, listening
from support.restoring import pictures, tree

from percodec.export.restore.mirror import RECORDS
from percodec.runtime.cluster import ray_module


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # on a busy machine its workers would wait for everybody else
    ray_module()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()


@pytest.mark.long
def test_a_node_that_is_killed_leaves_the_bytes_of_an_uninterrupted_run(cluster, restorer, tmp_path):
    source, out = pictures(tmp_path / "source", 600), tmp_path / "two"
    words = ["restore", "apply", str(source)]
    options = ["--restorer", str(restorer), "--bpp", "0.1", "--json"]
    subprocess.run([*COMMAND, *words, str(tmp_path / "whole"), *options], stdout=subprocess.DEVNULL, check=True)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    assert not listening(children())
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, *words, str(out), *options, "--workers", "ray"], stdout=log, stderr=log, env=environment)
    journal = out / RECORDS
    while process.poll() is None and len(journal.read_text().splitlines() if journal.exists() else []) < 100:
        time.sleep(0.05)
    assert process.poll() is None, (tmp_path / "log").read_text()
    doomed = next(node for node in nodes if "ray::Map" in " ".join(map(command, children(raylet_of(node)))))
    cluster.remove_node(doomed, allow_graceful=False)
    assert process.wait(300) == 0, (tmp_path / "log").read_text()
    assert tree(out) == tree(tmp_path / "whole")


def raylet_of(node):
    return node.all_processes["raylet"][0].process.pid
