"""Where a report goes: over an evaluation of before, and over nothing else."""

from __future__ import annotations

import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from jobs.command_line import finite
from jobs.forecasts.forecasters.baselines import persistence
from jobs.forecasts.reports.outputs import check_writable, destinations
from jobs.forecasts.reports.score_table import as_csv
from jobs.forecasts.scoring.scores import Evaluation
from pipelines.errors import UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import evaluate


@pytest.fixture
def evaluation(make_store) -> Evaluation:
    store = make_store()
    return evaluate(
        store,
        persistence,
        variables=("t2m",),
        window=WindowSpec(4, 3),
        normalisation=Normalisation.from_store(store, ("t2m",), "standardise"),
        max_windows=2,
        resamples=0,
    )


def other_arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, values=np.zeros(3))
    return file.getvalue()


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for report in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "file" / "day.html"):
        with pytest.raises(UsageError, match="file is not a folder"):
            check_writable(str(report))
    with pytest.raises(UsageError, match="no driver"):
        check_writable("nowhere://bucket/report")


def test_an_empty_place_is_refused():
    for report in ("", " "):
        with pytest.raises(UsageError, match="--report is empty"):
            check_writable(report)


@pytest.mark.parametrize("name", ["report.html", "scores.json", "scores.csv", "sums.npz"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="a folder stands here") as refused:
        check_writable(str(tmp_path))
    assert refused.value.where == str(tmp_path / name)


NOT_OURS = {
    "json": (b'{"options": 1}', b'["schema", "variables"]', b"no JSON", b""),
    "csv": (b"time,value\n", b""),
    "npz": (b"no npz", b"", other_arrays()),
}


@pytest.mark.parametrize("ending", NOT_OURS)
def test_files_beside_a_page_that_no_evaluation_wrote_are_not_replaced(tmp_path, ending):
    file = tmp_path / f"t2m.{ending}"
    for content in NOT_OURS[ending]:
        file.write_bytes(content)
        with pytest.raises(UsageError, match="something else is here") as refused:
            check_writable(str(tmp_path / "t2m.html"))
        assert refused.value.where == str(file)
        assert file.read_bytes() == content


@pytest.mark.parametrize("name", ["day.html", "folder"])
def test_the_report_of_an_evaluation_is_written_again(evaluation, tmp_path, name):
    report = str(tmp_path / name)
    (tmp_path / "folder").mkdir()
    written = destinations(report)
    for _ in range(2):
        # Killed after each of its files it can be run again.
        check_writable(report)
        Path(written.table).write_text(as_csv(evaluation))
        check_writable(report)
        evaluation.sums.write(written.sums)
        check_writable(report)
        Path(written.scores).write_text(json.dumps(finite(evaluation.as_dict())))
        Path(written.page).write_text("<!DOCTYPE html>")


def test_damaged_sums_beside_their_scores_are_replaced_and_other_arrays_are_not(
    evaluation, tmp_path
):
    written = destinations(str(tmp_path))
    Path(written.scores).write_text(json.dumps(finite(evaluation.as_dict())))
    Path(written.sums).write_bytes(evaluation.sums.content[:-100])
    check_writable(str(tmp_path))
    Path(written.sums).write_bytes(other_arrays())
    with pytest.raises(UsageError, match="something else is here"):
        check_writable(str(tmp_path))


def test_a_report_is_not_written_into_a_store(make_store):
    store = make_store()
    for report in ("", "/report", "/t2m/c/report", "/day.html"):
        with pytest.raises(UsageError, match="not written into a Zarr store") as refused:
            check_writable(store.uri + report)
        assert refused.value.where is not None
        assert refused.value.where.endswith(", which holds zarr.json")
        assert store.uri in refused.value.where


@pytest.mark.parametrize(
    ("name", "record", "what"),
    [
        ("run.json", {"statistics_fingerprint": ""}, "a run"),
        ("checkpoint.json", {"files": {}}, "a checkpoint"),
        ("model.json", {"weights": {}}, "an exported folder"),
    ],
)
def test_a_report_is_not_written_into_a_run_or_an_export(tmp_path, name, record, what):
    (tmp_path / name).write_text("{}")  # somebody else's file of this name
    check_writable(str(tmp_path / "report"))
    (tmp_path / name).write_text(json.dumps(record))
    for report in ("", "report", "below/report", "day.html"):
        with pytest.raises(UsageError, match=f"not written into {what}") as refused:
            check_writable(str(tmp_path / report))
        assert refused.value.where == f"{tmp_path}, which holds {name}"
    check_writable(f"{tmp_path}-report")
    files = fsspec.filesystem("memory")
    files.pipe_file(f"/runs/one/{name}", json.dumps(record).encode())
    with pytest.raises(UsageError, match=f"not written into {what}"):
        check_writable("memory://runs/one/reports/day.html")
    files.rm("/runs", recursive=True)


def test_asking_whether_a_place_can_be_written_leaves_nothing_there(tmp_path):
    check_writable(str(tmp_path / "new" / "day.html"))
    assert not list(tmp_path.iterdir())
    check_writable("memory://empty/report")
    assert fsspec.filesystem("memory").find("/empty") == []
