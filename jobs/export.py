"""Write a trained model as one self-contained folder that needs no Ray, no Zarr and no pipelines.

    python jobs/export.py --run RUN --to FOLDER

The folder holds weights.safetensors and model.json; gmg_model alone reads it:

    import gmg_model
    forecaster = gmg_model.load_exported("FOLDER")
    forecast = forecaster(frames, horizon=12)   # (T, C, H, W) in physical units, in and out

Of a run, the checkpoint with the best validation loss is exported, or the latest one if the run
has no validation. The folder of a checkpoint may be given instead. The way through the code:
jobs/training/run/checkpoints.py, jobs/forecasts/forecasters/trained.py, gmg_model/exported.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.command_line import main_guard, parse_options, print_json


@dataclass(frozen=True)
class ExportOptions:
    """Which model is exported, and where to."""

    run: str
    """URI of a run, or of one of its checkpoints."""
    to: str
    """local folder to write; it must be new or empty."""


def export(options: ExportOptions, json: bool = False) -> None:
    """Write the folder, and print what it holds or one JSON object."""
    from jobs.forecasts.forecasters.trained import export_record
    from jobs.training.run.checkpoints import load_checkpoint

    folder = _new_folder(options.to)
    checkpoint = load_checkpoint(options.run)
    record = export_record(checkpoint)
    _write(folder, record, checkpoint.weights_file())
    if json:
        print_json({"folder": folder, "checkpoint": checkpoint.uri, "step": checkpoint.step})
        return
    print(f"exported step {checkpoint.step} of {checkpoint.uri} to {folder}")
    if "normals" in record["normalisation"]:
        print("it forecasts anomalies: give the time of the newest frame as well, newest=...")
    if record["frame_seconds"]:
        print(f"its frames, given and forecast, are {record['frame_seconds']} s apart")


def _new_folder(to: str) -> str:
    """Return the path of the folder to write; UsageError unless it is local and new or empty."""
    import os

    from pipelines.errors import UsageError
    from pipelines.storage import places

    if not places.is_local(to):
        raise UsageError(
            "an export is a local folder", where=to, remedy="export here, then copy the folder"
        )
    folder = places.local_path(to)
    if os.path.isdir(folder) and os.listdir(folder):
        raise UsageError(
            "the folder is not empty", where=folder, remedy="give --to a new or an empty folder"
        )
    return folder


def _write(folder: str, record: dict[str, object], weights: bytes) -> None:
    from gmg_model.exported import write_exported
    from pipelines.errors import UsageError

    try:
        write_exported(folder, record, weights)
    except OSError as error:
        raise UsageError(
            f"the folder cannot be written: {error.strerror}",
            where=folder,
            remedy="give a --to that you may write to",
        ) from None


def main() -> None:
    """Parse and export."""
    export(*parse_options(ExportOptions, __doc__, "print one JSON object instead of a line"))


if __name__ == "__main__":
    main_guard(main)
