"""Archives made of clips: the clips that are found, their frames, and which archives raise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.archives import load_archive
from pipelines.archives.clips.archive import ClipArchive, index_clips
from pipelines.archives.clips.moving_mnist import MovingMnistOptions, make_clip
from pipelines.archives.contents import ArchiveIndex
from pipelines.archives.interface import resolve
from pipelines.archives.sources.reading import reading
from pipelines.errors import SourceError, UsageError
from pipelines.timeline.clips import Clips
from tests.support.archives.clip_archives import (
    write_cikm_images,
    write_cikm_text,
    write_digits,
    write_image,
    write_kth,
    write_openstl,
    write_shanghai,
    write_test_clips,
)

FEW = {"samples": 5, "validation_samples": 2, "test_samples": 3}


def clip_archive(name: str) -> ClipArchive:
    archive = load_archive(name)
    assert isinstance(archive, ClipArchive)
    return archive


def index(name: str, source: Path, **options: Any) -> ArchiveIndex:
    return index_clips(clip_archive(name), str(source), options=options)


def clips_of(found: ArchiveIndex) -> Clips:
    assert found.clips is not None
    return found.clips


def decoded(found: ArchiveIndex) -> np.ndarray:
    """Return all frames, (clips, T, ...); NaN where a frame is missing."""
    clips, variable = clips_of(found), found.variables[0]
    frames = np.full((len(clips.ids) * clips.frames, *variable.shape), np.nan, np.float32)
    rows = np.searchsorted(clips.axis(), variable.times)
    opener = clip_archive(found.archive).opener(found.options)
    for number in np.unique(variable.files).tolist():
        chosen = variable.files == number
        with reading(found.files[number]) as path, opener(path, found.files[number]) as decode:
            frames[rows[chosen]] = decode(variable.name, variable.positions[chosen])
    return frames.reshape(len(clips.ids), clips.frames, *variable.shape)


def test_moving_mnist_clips_are_a_function_of_seed_split_and_number(tmp_path: Path):
    folder = write_digits(tmp_path)
    few = decoded(index("moving_mnist", folder, **FEW))
    more = decoded(index("moving_mnist", folder, **FEW | {"samples": 7}))
    other = decoded(index("moving_mnist", folder, **FEW, seed=1))
    np.testing.assert_array_equal(more[:5], few[:5])
    np.testing.assert_array_equal(more[7:], few[5:])
    assert len({clip.tobytes() for clip in (*few, *other)}) == 20


def test_moving_mnist_digits_move_evenly_and_bounce_off_the_edges(tmp_path: Path):
    pixel = np.zeros((1, 28, 28), np.uint8)
    pixel[0, 0, 0] = 255  # its place in a frame is that of the digit's corner
    options = MovingMnistOptions(frames=60, digits=1)
    for number in range(20):
        clip = make_clip(pixel, options, "train", number)
        frames, ys, xs = np.nonzero(clip)
        np.testing.assert_array_equal(frames, np.arange(60))
        steps = np.abs(np.diff(np.stack([ys, xs]), axis=1))
        assert max(ys.max(), xs.max()) <= 36
        # Rounding shifts a place by half a pixel; at an edge a step folds back on itself.
        assert steps.max() <= 6
        usual = np.median(steps, axis=1)
        assert 1 <= np.hypot(*usual) <= 6.5
        assert ((np.abs(steps - usual[:, None]) <= 1).mean(axis=1) > 0.6).all()


def test_moving_mnist_digits_overlap_where_they_meet():
    full = np.full((1, 28, 28), 200, np.uint8)
    full[0, :5] = 90
    clip = make_clip(full, MovingMnistOptions(digits=3), "train", 0)
    assert set(np.unique(clip).tolist()) == {0, 90, 200}


def test_the_published_test_clips_become_the_test_split(tmp_path: Path):
    folder = write_digits(tmp_path, test=False)
    values = write_test_clips(folder)
    found = index("moving_mnist", folder, samples=4, validation_samples=0)
    assert clips_of(found).splits == {"train": (0, 3), "test": (4, 6)}
    np.testing.assert_array_equal(decoded(found)[4:], values.swapaxes(0, 1))


def test_clips_longer_than_the_published_ones_are_made_from_test_digits(tmp_path: Path):
    folder = write_digits(tmp_path)
    write_test_clips(folder)
    found = index("moving_mnist", folder, **FEW, frames=40)
    assert decoded(found).shape == (10, 40, 64, 64)
    assert "made instead" in found.notes[0]
    assert clips_of(found).splits["test"] == (7, 9)


def test_moving_mnist_without_test_digits_names_the_missing_file(tmp_path: Path):
    folder = write_digits(tmp_path, test=False)
    with pytest.raises(SourceError, match="t10k-images") as refused:
        index("moving_mnist", folder)
    assert "mnist_test_seq.npy" in str(refused.value.remedy)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.9])
def test_a_truncated_digits_file_is_named(tmp_path: Path, kept: float):
    folder = write_digits(tmp_path)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(SourceError) as refused:
        decoded(index("moving_mnist", folder, **FEW))
    assert path.name in str(refused.value.where)


def test_the_real_digits_are_read(shared: Path):
    found = index("moving_mnist", shared / "data/mnist", **FEW)
    frames = decoded(found)
    assert frames.shape == (10, 20, 64, 64)
    assert (frames.reshape(10, 20, -1).max(axis=2) > 200).all()
    assert 0.03 < (frames > 0).mean() < 0.12


def test_cikm_text_becomes_reflectivity_of_one_height(tmp_path: Path):
    written = write_cikm_text(tmp_path, train=4, testA=2, testB=1)
    found = index("cikm2017", tmp_path, height=2, validation=0.25)
    clips = clips_of(found)
    assert clips.splits == {"train": (0, 2), "validation": (3, 3), "test": (4, 6)}
    assert clips.ids.tolist()[4:] == ["testA_1", "testA_2", "testB_1"]
    order = [int(name.rsplit("_", 1)[1]) - 1 for name in clips.ids[:4]]
    pixels = np.concatenate([written["train"][order], written["testA"], written["testB"]])[:, :, 2]
    expected = np.where(pixels < 0, np.nan, pixels * 95 / 255 - 10)
    np.testing.assert_allclose(decoded(found), expected, rtol=1e-6, atol=1e-5)
    assert np.isnan(expected).any()


def test_the_validation_split_of_cikm_is_a_seeded_tenth(tmp_path: Path):
    (tmp_path / "train.txt").write_text("".join(f"train_{i},1.0,0\n" for i in range(1000)))
    first, again = (clips_of(index("cikm2017", tmp_path)) for _ in range(2))
    other = clips_of(index("cikm2017", tmp_path, seed=1))
    assert first.splits == {"train": (0, 899), "validation": (900, 999)}
    np.testing.assert_array_equal(first.ids, again.ids)
    assert set(first.ids[900:]) != set(other.ids[900:])
    assert set(first.ids) == {f"train_{i}" for i in range(1000)}


def test_a_cikm_sample_that_was_cut_off_is_named(tmp_path: Path):
    write_cikm_text(tmp_path, train=2)
    path = tmp_path / "train.txt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SourceError, match="train_2 has") as refused:
        decoded(index("cikm2017", tmp_path, validation=0.0))
    assert "train.txt" in str(refused.value.where)


def test_cikm_images_are_read_in_the_order_of_their_numbers(tmp_path: Path):
    pixels = write_cikm_images(tmp_path, 11)
    (tmp_path / "sample_3" / "img_15.png").unlink()
    found = index("cikm2017", tmp_path, validation=0.0)
    assert clips_of(found).ids.tolist() == [f"sample_{i}" for i in range(1, 12)]
    frames = decoded(found)
    assert np.isnan(frames[2, 14]).all()
    frames[2, 14] = pixels[2, 14] * (95 / 255) - 10
    np.testing.assert_allclose(frames, pixels * (95 / 255) - 10, rtol=1e-6, atol=1e-5)


def test_shanghai_examples_keep_their_changing_cadence(tmp_path: Path):
    grey = write_shanghai(tmp_path, train=10, test=2)
    found = index("shanghai2020", tmp_path)
    clips = clips_of(found)
    assert (np.diff(clips.offsets) // 60).tolist() == [6] * 9 + [12] * 10
    assert clips.offsets[-1] == 174 * 60
    assert clips.splits == {"train": (0, 8), "validation": (9, 9), "test": (10, 11)}
    expected = np.concatenate([grey["train"], grey["test"]]) * (70 / 255)
    np.testing.assert_allclose(decoded(found), expected, rtol=1e-6)
    assert found.notes == ()


def test_shanghai_validation_shares_no_image_with_train(tmp_path: Path):
    write_shanghai(tmp_path, train=40, test=1, step=10)
    found = index("shanghai2020", tmp_path)
    clips, variable = clips_of(found), found.variables[0]
    files = variable.files.reshape(-1, 20)
    first, last = (clips.splits[name] for name in ("train", "validation"))
    train = set(files[first[0] : first[1] + 1].ravel().tolist())
    assert not train & set(files[last[0] : last[1] + 1].ravel().tolist())
    assert (first, last) == ((0, 35), (36, 37))
    assert "2 train examples" in found.notes[0]


def test_a_shanghai_example_with_a_short_list_is_named(tmp_path: Path):
    write_shanghai(tmp_path, train=2, test=1)
    path = tmp_path / "train/examples/00001-targets-train.txt"
    path.write_text("radar_00001.png\n")
    with pytest.raises(SourceError, match="lists 1 targets, not 10") as refused:
        index("shanghai2020", tmp_path)
    assert path.name in str(refused.value.where)


@pytest.mark.parametrize("compressed", [True, False])
def test_openstl_clips_are_inputs_followed_by_targets(tmp_path: Path, compressed: bool):
    arrays = write_openstl(tmp_path / "dataset.npz", compressed=compressed)
    found = index("openstl_npz", tmp_path)
    clips = clips_of(found)
    # Windows overlap: seven between train and validation share frames with both.
    assert clips.splits == {"train": (0, 28), "validation": (29, 32), "test": (33, 37)}
    assert clips.ids[29] == "train-36"
    whole = {s: np.concatenate([arrays[f"X_{s}"], arrays[f"Y_{s}"]], 1) for s in ("train", "test")}
    expected = np.concatenate([whole["train"][:29], whole["train"][36:], whole["test"]])
    np.testing.assert_array_equal(decoded(found), expected)


def test_an_npz_of_objects_raises_and_is_not_unpickled(tmp_path: Path):
    arrays: dict[str, Any] = write_openstl(tmp_path / "dataset.npz")
    arrays["Y_test"] = np.empty((5, 4, 2, 6, 5), object)
    np.savez(tmp_path / "dataset.npz", **arrays)
    with pytest.raises(SourceError, match=r"Y_test: .*objects"):
        index("openstl_npz", tmp_path)


def test_a_truncated_npz_is_named(tmp_path: Path):
    path = tmp_path / "dataset.npz"
    write_openstl(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SourceError, match="not a whole dataset") as refused:
        index("openstl_npz", tmp_path)
    assert "dataset.npz" in str(refused.value.where)


def test_kth_persons_decide_the_split_and_sequences_are_cut_into_clips(tmp_path: Path):
    write_kth(
        tmp_path,
        {
            "walking/person01_walking_d1": 23,
            "walking/person16_walking_d1": 10,
            "boxing/person25_boxing_d4": 9,
        },
    )
    found = index("kth", tmp_path, frames=10)
    clips = clips_of(found)
    assert clips.splits == {"train": (0, 1), "validation": (2, 2)}
    assert clips.ids[1] == "walking/person01_walking_d1/10"
    rng = np.random.default_rng(23)
    sequence = np.stack([rng.integers(0, 256, (6, 8)).astype(np.uint8) for _ in range(23)])
    np.testing.assert_array_equal(decoded(found)[1], sequence[10:20, :, 1:7])


def test_two_clips_with_the_same_name_raise(tmp_path: Path):
    line = "train_1,1.0,0\n"
    (tmp_path / "train.txt").write_text(line + line)
    with pytest.raises(SourceError, match="two clips are called 'train_1'"):
        index("cikm2017", tmp_path)


def test_an_archive_without_train_clips_raises(tmp_path: Path):
    write_kth(tmp_path, {"walking/person25_walking_d1": 10})
    with pytest.raises(SourceError, match="no clip to train on"):
        index("kth", tmp_path, frames=10)


def test_a_damaged_image_is_named(tmp_path: Path):
    write_cikm_images(tmp_path, 2)
    path = tmp_path / "sample_2" / "img_4.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SourceError, match="image cannot be read") as refused:
        decoded(index("cikm2017", tmp_path, validation=0.0))
    assert "sample_2/img_4.png" in str(refused.value.where)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("moving_mnist", {"sampels": 3}, "samples"),
        ("moving_mnist", {"samples": 0}, "1 or more"),
        ("moving_mnist", {"frames": 1}, "2 or more"),
        ("cikm2017", {"height": 4}, "0 to 3"),
        ("cikm2017", {"validation": 1.0}, "0.1"),
        ("openstl_npz", {"seed": 1}, "validation"),
        ("taxibj", {"slots_per_day": -1}, "0 or more"),
        ("era5", {"samples": 3}, "leave it out"),
    ],
)
def test_invalid_options_raise_with_a_remedy(name: str, options: dict[str, Any], said: str):
    with pytest.raises(UsageError) as refused:
        resolve(name, load_archive(name).options, options)
    assert said in str(refused.value.remedy)
    assert f"--{next(iter(options))}" in str(refused.value.where)


def test_an_archive_in_another_folder_has_the_same_index(tmp_path: Path):
    write_cikm_images(tmp_path / "here", 2)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    names = [[f.name for f in index("cikm2017", tmp_path / p).files] for p in ("here", "there")]
    assert names[0] == names[1]
    assert len(set(names[0])) == 30


def test_images_with_other_names_are_ignored(tmp_path: Path):
    write_kth(tmp_path, {"walking/person01_walking_d1": 10})
    write_image(tmp_path / "poster.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "README.md").write_text("not an image")
    assert decoded(index("kth", tmp_path, frames=10)).shape == (1, 10, 6, 6)
