"""The folder of a run: its options, whether they may change, and its history.

`<run>/run.json`       resolved options, versions, store fingerprint, git commit; written once
`<run>/.ledger/`       the lease of the process that trains it now
`<run>/history/`       one JSON line per step, in one file per stretch between checkpoints
`<run>/tensorboard/`   the same as TensorBoard event files (`jobs.training.run.tensorboard`)
`<run>/step_<n>/`      checkpoints (`jobs.training.run.checkpoints`)
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from jobs.training.options import TrainOptions
from jobs.training.run.checkpoints import PREFIX
from pipelines.errors import UsageError
from pipelines.storage import places
from pipelines.storage.lease import LEDGER_FOLDER
from pipelines.storage.writable import check_writable

RECORD = "run.json"
HISTORY = "history"
EVENTS = "tensorboard"
MAY_DIFFER = (
    "run",
    "workers",
    "use_gpu",
    "cpus_per_worker",
    "shared_paths",
    "data.transport",
    "training.epochs",
    "training.micro_batch",
    "training.patience",
    "checkpoints.",
    "elastic.",
    "validation.every_",
    "tracking.",
)
"""Options that may change when a run is resumed. None changes what a step computes, except that the
horizon of the learning rate's schedule follows the epochs."""


def check_place(run: str) -> None:
    """Raise UsageError if the folder is not writable, or holds anything but a run."""
    check_writable(run, "run")
    foreign = [] if is_run(run) else [name for name in places.names(run) if name != LEDGER_FOLDER]
    if foreign:
        raise UsageError(
            "the folder exists and is not a run of this project "
            f"(it holds {', '.join(foreign[:3])})",
            where=run,
            remedy="give --run a new or an empty folder",
        )


def check_same(options: TrainOptions, fingerprint: str) -> bool:
    """Return whether the folder holds this run already, and check that it may be resumed.

    Parameters
    ----------
    options:
        The resolved options.
    fingerprint:
        Of the statistics of the store.

    Returns
    -------
    bool
        True if the run exists, False if the folder is empty.

    Raises
    ------
    UsageError
        The run was begun with other options, or on another store.
    """
    record_uri = places.join(options.run, RECORD)
    try:
        record = json.loads(places.read_bytes(record_uri))
    except FileNotFoundError:
        return False
    # An option that did not exist when the run began had its default then.
    began = TrainOptions.from_dict(record["options"])
    differences = _differences(began.as_dict(), options.as_dict())
    if record["statistics_fingerprint"] != fingerprint:
        differences.append(
            "  statistics of the store: "
            f"{record['statistics_fingerprint'][:12]} -> {fingerprint[:12]}"
        )
    if differences:
        raise UsageError(
            "this run was begun with another configuration (there -> here):\n"
            + "\n".join(differences),
            where=options.run,
            remedy="give the options it was begun with, or another --run",
        )
    return True


def write_record(options: TrainOptions, fingerprint: str) -> None:
    """Write `run.json` of a new run.

    Raises
    ------
    UsageError
        The folder is not writable.
    """
    uri = places.join(options.run, RECORD)
    record = {
        "options": options.as_dict(),
        "statistics_fingerprint": fingerprint,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "git_commit": git_commit(),
    }
    places.write_bytes(uri, json.dumps(record, indent=1).encode())


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return one line for each option that differs and must not."""
    before, after = flat(there), flat(here)
    return [
        f"  {key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and not key.startswith(MAY_DIFFER)
    ]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options by their dotted names.

    Examples
    --------
    >>> flat({"training": {"epochs": 3}})
    {'training.epochs': 3}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    packages = ("torch", "ray", "zarr", "numpy", "xarray", "gmg-platform")
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Return the commit of the code, with `+changes` if files differ from it; None outside git."""
    root = Path(__file__).resolve().parents[3]
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")


def write_history(run: str, steps: list[dict[str, Any]]) -> None:
    """Write the steps since the last checkpoint. A stretch that is repeated replaces its file."""
    if steps:
        text = "".join(json.dumps(step) + "\n" for step in steps)
        name = f"{steps[0]['step']:09d}.jsonl"
        places.write_bytes(places.join(run, HISTORY, name), text.encode())


def forget_after(run: str, step: int) -> None:
    """Delete the stretches that begin at `step` or later, which will be trained again."""
    for folder in (HISTORY, EVENTS):
        for name in places.names(places.join(run, folder)):
            first = "".join(filter(str.isdigit, name))
            if first and int(first) >= step:
                places.delete(places.join(run, folder, name))


def read_history(run: str) -> list[dict[str, Any]]:
    """Return every step's record once, by step: `step`, `epoch`, `loss`, `learning_rate`, ..."""
    folder = places.join(run, HISTORY)
    steps: dict[int, dict[str, Any]] = {}
    for name in places.names(folder):
        for line in places.read_bytes(places.join(folder, name)).decode().splitlines():
            record = json.loads(line)
            steps[record["step"]] = record
    return [steps[step] for step in sorted(steps)]


def last_stretch(run: str) -> list[dict[str, Any]]:
    """Return the records of the steps that came with the last checkpoint."""
    folder = places.join(run, HISTORY)
    last = max(places.names(folder), default=None)
    if last is None:
        return []
    lines = places.read_bytes(places.join(folder, last)).decode().splitlines()
    return [json.loads(line) for line in lines]


def is_run(uri: str) -> bool:
    """Return whether the folder has the record of a run."""
    return places.exists(places.join(uri, RECORD))


def run_of(checkpoint_uri: str) -> str:
    """Return the run that a checkpoint's folder belongs to. A run is returned unchanged.

    Examples
    --------
    >>> run_of("s3://bucket/run/step_000000400")
    's3://bucket/run'
    """
    parent, _, name = checkpoint_uri.rstrip("/").rpartition("/")
    return parent if name.startswith(PREFIX) else checkpoint_uri
