"""A conversion on two Ray nodes, each with a folder of its own for temporary files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.archives.sources.cache import kept_copies
from pipelines.cluster.session import on_other_nodes
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.stores.store import open_store
from tests.pipelines.archives.test_zips import zipped
from tests.support.archives.small_archives import fields, hourly, write_days
from tests.support.processes import shared_ray


@pytest.fixture(scope="module")
def other_folder() -> Iterator[Path]:
    """Start a second node beside the driver's, and yield its folder for temporary files."""
    import ray
    from ray.cluster_utils import Cluster

    # Ray creates sockets in this folder, and paths of sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="n"))
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 1024**2}
    shared_ray.end()
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        cluster.add_node(env_vars={"TMPDIR": str(folder)}, **node)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield folder
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_function_runs_on_the_other_nodes_only(other_folder: Path, tmp_path: Path):
    def leave_a_trace() -> None:
        (tmp_path / tempfile.gettempdir().replace("/", "_")).touch()

    on_other_nodes(leave_a_trace)
    assert [path.name for path in tmp_path.iterdir()] == [str(other_folder).replace("/", "_")]


def test_no_node_keeps_copies_of_sources_when_a_conversion_is_done(
    other_folder: Path, tmp_path: Path
):
    source = zipped(write_days(tmp_path / "days", 1, 2), tmp_path / "t2m.zip")
    options = ConversionOptions(chunk_frames=4, shard_frames=4)
    store = str(tmp_path / "s")
    request = ConversionRequest("weatherbench", str(source), store, options, shared_paths=True)
    with kept_copies() as cache:
        (other_folder / Path(cache.folder).name / "copy").mkdir(parents=True)
        assert convert(request).shards_written == 12
        assert Path(cache.folder).is_dir()
        assert not (other_folder / Path(cache.folder).name).exists()
    assert not Path(cache.folder).exists()
    stored = open_store(store).array("t2m")[:]
    np.testing.assert_array_equal(stored, fields(hourly("2010-01-01", 48)))
