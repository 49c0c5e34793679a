"""Stores of clips: `sample` is the first dimension; streams see one axis of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipelines.audit.inspection import ClipsDescription, inspect
from pipelines.audit.verification import verify
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionReport, ConversionRequest
from pipelines.errors import SourceError, StoreError, UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store, open_store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_stream import WindowStream, read_batches
from pipelines.stream.windows import WindowSpec, lead_seconds, split_starts
from tests.pipelines.conversion.test_convert import content
from tests.support.archives.clip_archives import (
    write_cikm_images,
    write_cikm_text,
    write_digits,
    write_image,
    write_openstl,
    write_shanghai,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")

FEW = {"samples": 12, "validation_samples": 3, "test_samples": 4, "frames": 6}


def run(archive: str, source: Path, store: Path, **options: Any) -> ConversionReport:
    sizes = {name: options.pop(name) for name in list(options) if name.endswith("_frames")}
    request = ConversionOptions(**sizes, archive_options=options)
    return convert(ConversionRequest(archive, str(source), str(store), request))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def store(digits: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 19 clips of 6 frames, in chunks of 2 clips and shards of 4."""
    place = tmp_path_factory.mktemp("store") / "s"
    run("moving_mnist", digits, place, **FEW, chunk_frames=12, shard_frames=24)
    return open_store(str(place))


def frames_of(store: Store) -> np.ndarray:
    """Return the frames as xarray reads them, (clips * T, H, W)."""
    values = store.dataset()["intensity"].values
    return values.reshape(-1, *values.shape[2:])


def test_clips_are_the_first_dimension_for_xarray(store: Store):
    dataset = xr.open_zarr(store.uri)
    assert dataset["intensity"].dims == ("sample", "time", "y", "x")
    assert dataset["intensity"].shape == (19, 6, 64, 64)
    assert dataset["available"].dims == ("sample", "time")
    assert dataset["sample"].values[[0, 12, 15]].tolist() == ["train-0", "validation-0", "test-0"]
    assert dataset["time"].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert dataset.attrs["splits"] == {"train": [0, 11], "validation": [12, 14], "test": [15, 18]}
    assert dataset.attrs["splits_unit"] == "sample"
    assert dataset.attrs["configuration"]["archive_options"]["samples"] == 12


def test_statistics_are_of_the_train_clips_only(store: Store):
    train = store.dataset()["intensity"].values[:12].astype(np.float64)
    found = store.statistics["variables"]["intensity"]
    assert store.statistics["period"] == [0, 11]
    assert found["count"] == train.size
    assert found["mean"] == pytest.approx(train.mean(), rel=1e-12)
    assert found["std"] == pytest.approx(train.std(), rel=1e-12)


def test_a_second_run_does_nothing(store: Store, digits: Path):
    before = content(Path(store.uri))
    report = run("moving_mnist", digits, Path(store.uri))
    assert not report.changed
    assert (report.shards_written, report.shards_skipped) == (0, 5)
    assert content(Path(store.uri)) == before


def test_lost_and_damaged_shards_are_named_and_repaired_with_equal_bytes(
    store: Store, digits: Path, tmp_path: Path
):
    copy = tmp_path / "s"
    run("moving_mnist", digits, copy, **FEW, chunk_frames=12, shard_frames=24)
    assert content(copy) == content(Path(store.uri))
    (copy / "intensity/c/1/0/0/0").unlink()
    (copy / "intensity/c/3/0/0/0").write_bytes(b"damaged")
    (copy / "zarr.json").unlink()
    kinds = {problem.place: problem.kind for problem in verify(str(copy)).problems}
    assert kinds["intensity/c/1/0/0/0"] == "missing"
    assert kinds["intensity/c/3/0/0/0"] == "altered"
    assert run("moving_mnist", digits, copy).shards_written == 2
    assert content(copy) == content(Path(store.uri))
    assert verify(str(copy), str(digits)).ok


def test_windows_start_anywhere_in_a_clip_but_do_not_leave_it(store: Store):
    spec = WindowSpec(2, 2)
    starts = split_starts(store, "validation", spec)
    assert starts.tolist() == [6 * clip + first for clip in (12, 13, 14) for first in (0, 1, 2)]
    assert split_starts(store, "train", WindowSpec(3, 3)).tolist() == list(range(0, 72, 6))
    with pytest.raises(UsageError, match="no window fits") as refused:
        split_starts(store, "test", WindowSpec(4, 3))
    assert "sample 15 to sample 18" in str(refused.value.where)


@pytest.mark.parametrize("spec", [WindowSpec(3, 3), WindowSpec(2, 1), WindowSpec(1, 2, stride=2)])
def test_the_stream_serves_every_window_of_the_train_clips_once(store: Store, spec: WindowSpec):
    starts = split_starts(store, "train", spec)
    normalisation = Normalisation.from_store(store, ("intensity",), "minmax")
    order = OrderConfig(global_batch=3, seed=1)
    stream = WindowStream(store, ("intensity",), spec, starts, order, normalisation, range(3))
    values, seen = frames_of(store), []
    for batch in stream.epoch(0):
        for start, window in zip(batch.starts, batch.frames_btchw, strict=True):
            rows = start + np.arange(spec.frames) * spec.stride
            np.testing.assert_array_equal(window[:, 0], normalisation.apply(values[rows]))
            seen.append(int(start))
    assert sorted(seen) == starts.tolist()


def test_windows_for_scores_are_the_stored_values(store: Store):
    starts = split_starts(store, "test", WindowSpec(2, 3))
    values = frames_of(store)
    read = list(read_batches(store, ("intensity",), WindowSpec(2, 3), starts, 3))
    assert [len(chosen) for chosen, _ in read] == [3, 3, 2]
    for chosen, frames in read:
        expected = np.stack([values[start : start + 5] for start in chosen])
        np.testing.assert_array_equal(frames[:, :, 0], expected)


def test_inspect_counts_clips(store: Store):
    found = inspect(store.uri)
    assert found.samples == ClipsDescription(19, 6, offsets=(0, 1, 2, 3, 4, 5))
    assert found.splits["test"] == [15, 18]
    assert (found.period, found.cadence_seconds, found.gaps) == (None, None, ())
    assert found.variables["intensity"].shards == 5


def test_chunks_that_cut_clips_raise(digits: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="chunk_frames 16 is not a multiple of") as refused:
        run("moving_mnist", digits, tmp_path / "s", **FEW, chunk_frames=16)
    assert "18" in str(refused.value.remedy)


def test_changed_options_of_the_archive_raise_with_the_difference(store: Store, digits: Path):
    with pytest.raises(StoreError, match="seed: the store has 0, asked 1"):
        run("moving_mnist", digits, Path(store.uri), seed=1)


def test_an_option_of_another_archive_raises(digits: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="archive 'moving_mnist' has no option 'height'"):
        run("moving_mnist", digits, tmp_path / "s", height=1)
    with pytest.raises(UsageError, match="archive 'weatherbench' has no option 'height'"):
        run("weatherbench", digits, tmp_path / "s", height=1)


def test_splits_by_time_raise_for_clips(digits: Path, tmp_path: Path):
    bounds = dict.fromkeys(("train", "validation", "test"), ("2010-01-01", "2010-01-02"))
    options = ConversionOptions(splits=bounds, archive_options=FEW)
    with pytest.raises(UsageError, match="clips have no times to split by"):
        convert(ConversionRequest("moving_mnist", str(digits), str(tmp_path / "s"), options))


def test_later_test_clips_are_appended_as_if_converted_at_once(tmp_path: Path):
    write_cikm_text(tmp_path / "a", train=3, testA=2)
    sizes = {"chunk_frames": 15, "shard_frames": 30, "validation": 0.3}
    run("cikm2017", tmp_path / "a", tmp_path / "grown", **sizes)
    was = open_store(str(tmp_path / "grown"))
    write_cikm_text(tmp_path / "a", testB=2)
    report = run("cikm2017", tmp_path / "a", tmp_path / "grown")
    assert (report.shards_written, report.shards_skipped) == (2, 2)
    assert not report.statistics_changed
    run("cikm2017", tmp_path / "a", tmp_path / "whole", **sizes)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")
    grown = open_store(str(tmp_path / "grown"))
    assert (was.attributes["splits"]["test"], grown.attributes["splits"]["test"]) == (
        [3, 4],
        [3, 6],
    )


def test_later_train_clips_raise(tmp_path: Path):
    write_cikm_images(tmp_path / "a", 3)
    run("cikm2017", tmp_path / "a", tmp_path / "s", validation=0.4)
    before = content(tmp_path / "s")
    write_cikm_images(tmp_path / "a", 5)
    with pytest.raises(StoreError, match="clips do not continue the store's 3") as refused:
        run("cikm2017", tmp_path / "a", tmp_path / "s")
    assert "another --store" in str(refused.value.remedy)
    assert content(tmp_path / "s") == before


def test_a_missing_image_is_a_gap_until_a_later_run_finds_it(tmp_path: Path):
    pixels = write_cikm_images(tmp_path / "a", 4)
    late = tmp_path / "a" / "sample_2" / "img_5.png"
    image = late.read_bytes()
    late.unlink()
    sizes = {"chunk_frames": 15, "shard_frames": 30, "validation": 0.0}
    run("cikm2017", tmp_path / "a", tmp_path / "s", **sizes)
    store = open_store(str(tmp_path / "s"))
    assert np.flatnonzero(store.available).tolist() == [15 + 4]
    assert [gap.first for gap in inspect(store.uri).gaps] == ["clip sample_2, frame 4"]
    assert split_starts(store, "train", WindowSpec(5, 10)).tolist() == [0, 30, 45]
    late.write_bytes(image)
    assert run("cikm2017", tmp_path / "a", tmp_path / "s").shards_written == 1
    filled = open_store(str(tmp_path / "s"))
    assert split_starts(filled, "train", WindowSpec(5, 10)).tolist() == [0, 15, 30, 45]
    stored = filled.dataset()["reflectivity"].values
    np.testing.assert_allclose(stored, pixels * (95 / 255) - 10, rtol=1e-6, atol=1e-5)


def test_images_that_disappear_raise(tmp_path: Path):
    write_cikm_images(tmp_path / "a", 3)
    run("cikm2017", tmp_path / "a", tmp_path / "s", validation=0.0)
    (tmp_path / "a" / "sample_2" / "img_5.png").unlink()
    with pytest.raises(SourceError, match="clip sample_2, frame 4") as refused:
        run("cikm2017", tmp_path / "a", tmp_path / "s")
    assert "sample_2/img_5.png" in str(refused.value)


def test_an_image_of_another_size_is_an_error_that_names_it(tmp_path: Path):
    write_cikm_images(tmp_path / "a", 2)
    write_image(tmp_path / "a" / "sample_2" / "img_7.png", np.zeros((50, 60), np.uint8))
    with pytest.raises(SourceError, match="50 x 60, those of the archive 101 x 101") as refused:
        run("cikm2017", tmp_path / "a", tmp_path / "s", validation=0.0)
    assert "sample_2/img_7.png" in str(refused.value)


def test_regrid_averages_clips_to_the_size_of_the_papers(tmp_path: Path):
    pixels = write_cikm_images(tmp_path / "a", 2)
    options = ConversionOptions(regrid="64x64", archive_options={"validation": 0.0})
    convert(ConversionRequest("cikm2017", str(tmp_path / "a"), str(tmp_path / "s"), options))
    store = open_store(str(tmp_path / "s"))
    assert store.spatial_shape == (64, 64)
    stored = store.dataset()["reflectivity"].values
    echo = pixels * (95 / 255) - 10
    np.testing.assert_allclose(stored.mean((2, 3)), echo.mean((2, 3)), rtol=1e-5)


def test_clips_with_a_changing_cadence_give_only_whole_windows(tmp_path: Path):
    write_shanghai(tmp_path / "a", train=4, test=2)
    (tmp_path / "a/test/data/radar_00011.png").unlink()
    (tmp_path / "a/train/data/radar_00090.png").unlink()
    run("shanghai2020", tmp_path / "a", tmp_path / "s", validation=0.25)
    store = open_store(str(tmp_path / "s"))
    whole = WindowSpec(10, 10)
    assert split_starts(store, "train", whole).tolist() == [0, 20, 40]
    assert split_starts(store, "test", whole).tolist() == [100]
    with pytest.raises(UsageError, match="no clip of split 'validation' has all its 20 frames"):
        split_starts(store, "validation", whole)
    leads = lead_seconds(store, whole)
    assert (leads[0], leads[-1], len(leads)) == (720, 7200, 10)
    with pytest.raises(UsageError, match="from 360 s to 720 s after frame 10") as refused:
        split_starts(store, "train", WindowSpec(5, 10))
    assert "add up to 20" in str(refused.value.remedy)


def test_channels_of_clips_share_their_normalisation(tmp_path: Path):
    arrays = write_openstl(tmp_path / "dataset.npz")
    run("openstl_npz", tmp_path / "dataset.npz", tmp_path / "s", validation=0.0)
    store = open_store(str(tmp_path / "s"))
    info = store.variables["flow"]
    assert info.dims == ("sample", "time", "channel", "y", "x")
    assert info.channel_labels == ("flow[inflow]", "flow[outflow]")
    normalisation = Normalisation.from_store(store, ("flow",), "minmax")
    train = np.concatenate([arrays["X_train"], arrays["Y_train"]], axis=1)
    assert normalisation.offset == (float(train.min()),) * 2
    starts = split_starts(store, "test", WindowSpec(4, 4))
    (_, frames), *rest = read_batches(store, ("flow",), WindowSpec(4, 4), starts, 8)
    test = np.concatenate([arrays["X_test"], arrays["Y_test"]], axis=1)
    np.testing.assert_array_equal(frames, test)
    assert not rest
