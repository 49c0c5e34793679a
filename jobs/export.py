"""Write a trained model as one self-contained folder that needs no Ray, no Zarr and no pipelines.

    python jobs/export.py --run RUN --to FOLDER

The folder holds weights.safetensors and model.json; gmg_model alone reads it:

    import gmg_model
    forecaster = gmg_model.load_exported("FOLDER")
    forecast = forecaster(frames, horizon=12)   # (T, C, H, W) in physical units, in and out

A run gives its best checkpoint by validation loss (the latest where none was validated), the
folder of a checkpoint gives that one. The way through the code: jobs/training/run/checkpoints.py,
gmg_model/exported.py.
"""

from __future__ import annotations

from jobs.command_line import main_guard, parser_class, print_json


def export(run: str, to: str, json: bool = False) -> None:
    """Read a checkpoint, write the folder.

    Args:
        run: URI of a run, or of one of its checkpoints.
        to: local folder to write; it must be new or empty.
        json: print one JSON object on standard output instead of a line.
    """
    import os

    from jobs.training.run.checkpoints import load_checkpoint
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
    checkpoint = load_checkpoint(run)
    weights = checkpoint.weights_file()
    from gmg_model.exported import write_exported

    known = checkpoint.record
    record = {key: known[key] for key in ("model", "normalisation", "variables", "window", "grid")}
    record |= {key: known[key] for key in ("static",) if key in known}
    store = known.get("store", {})
    cadence = store.get("cadence_seconds")
    record |= {
        "frame_seconds": cadence and cadence * checkpoint.window.stride,
        "recipe": store.get("recipe"),
        "trained_on": {
            "title": store.get("title"),
            "period": store.get("train_period"),
            "statistics_fingerprint": checkpoint.fingerprint,
        },
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
        "options": checkpoint.configuration,
        "validation_period": known.get("validation_period"),
        "validation_loss": known["validation_loss"],
        "versions": known.get("versions", {}),
    }
    try:
        write_exported(folder, record, weights)
    except OSError as error:
        raise UsageError(
            f"the folder cannot be written: {error.strerror}",
            where=folder,
            remedy="give a --to that you may write to",
        ) from None
    if json:
        print_json({"folder": folder, "checkpoint": checkpoint.uri, "step": checkpoint.step})
        return
    print(f"exported step {checkpoint.step} of {checkpoint.uri} to {folder}")
    if "normals" in record["normalisation"]:
        print("it forecasts anomalies: give the time of the newest frame as well, newest=...")
    if record["frame_seconds"]:
        print(f"its frames, given and forecast, are {record['frame_seconds']} s apart")


def main() -> None:
    """Parse and export."""
    parser = parser_class()(description=__doc__)
    parser.add_function_arguments(export, skip={"json"})
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a line"
    )
    export(**vars(parser.parse_args()))


if __name__ == "__main__":
    main_guard(main)
