"""Small training runs for tests: options, one store, and the processes that belong to a run."""

from __future__ import annotations

import dataclasses
import importlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.command_line import main_guard
from jobs.training.options import (
    CheckpointOptions,
    DataOptions,
    ModelOptions,
    TrainingOptions,
    TrainOptions,
    ValidationOptions,
)
from jobs.training.plan import make_plan
from jobs.training.run import checkpoints, run_folder
from pipelines.storage import lease
from pipelines.stream.window_stream import Batch, WindowStream
from tests.conftest import ROOT


def small_options(store: str, run_uri: str, **changes: Any) -> TrainOptions:
    """Return options of a GMG-s of a few thousand weights: 2 epochs of 24 steps of 9 windows.

    The last step of an epoch has fewer windows. The precision is double, so that the rounding of
    another number of workers is much smaller than the effect of any error in the code.
    """
    values: dict[str, Any] = {
        "store": store,
        "run": run_uri,
        "workers": 2,
        "use_gpu": "false",
        "model": ModelOptions(hidden=(8, 8), patch_size=2, filter_size=3, attention_hidden=4),
        "data": DataOptions(input_frames=3, horizon=3, normalise="minmax", pool_mib=1),
        "training": TrainingOptions(
            epochs=2, global_batch=9, learning_rate=3e-3, seed=3, precision="fp64"
        ),
        "checkpoints": CheckpointOptions(every_steps=6, keep=20),
        "validation": ValidationOptions(windows=20),
    }
    return TrainOptions(**{**values, **changes})


def job(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a job as `python jobs/...` does, but in this process and with its Ray.

    If environment variables are given, the job runs in a process of its own, see `script`.
    """
    if environment:
        return script(*arguments, **environment)
    name, *words = map(str, arguments)
    main = importlib.import_module(f"jobs.{name.removesuffix('.py')}").main
    code: Any = None
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", [f"jobs/{name}", *words])
        try:
            main_guard(main)
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess([name, *words], code or 0, out.getvalue(), err.getvalue())


def script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python jobs/...` as a user would, in a process of its own."""
    name, *words = map(str, arguments)
    return subprocess.run(
        [sys.executable, f"jobs/{name}", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def losses(run_uri: str) -> list[float]:
    """Return the loss of every step."""
    records = run_folder.read_history(run_uri)
    assert [record["step"] for record in records] == list(range(len(records)))
    return [record["loss"] for record in records]


def first_batch(options: TrainOptions, **changes: Any) -> Batch:
    """Return the global batch of step 0 with all its lanes.

    Parameters
    ----------
    changes
        Arguments of the stream that differ from those of the training.
    """
    plan = make_plan(options)
    arguments: dict[str, Any] = {
        "store": plan.store,
        "variables": plan.variables,
        "spec": plan.window,
        "starts": plan.train_starts,
        "order": plan.order,
        "normalisation": plan.normalisation,
        "lanes": range(options.training.global_batch),
    }
    stream = WindowStream(**(arguments | changes))
    try:
        batch = next(iter(stream.epoch(0)))
        # The copies are needed because the stream writes its next batch into the same buffers.
        static = None if batch.static is None else batch.static.copy()
        return dataclasses.replace(batch, frames_btchw=batch.frames_btchw.copy(), static=static)
    finally:
        stream.close()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    """Wait until a condition is true; after `seconds`, raise TimeoutError, which names `what`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)


def has_checkpoint(run_uri: str, step: int) -> bool:
    """Return whether there is a complete checkpoint of this step or a later one."""
    found = checkpoints.list_checkpoints(run_uri)
    return bool(found) and found[-1].step >= step


def write_config(options: TrainOptions, folder: Path) -> str:
    """Write a YAML of all options, for `--config`, and return its path."""
    path = folder / "options.yaml"
    path.write_text(yaml.safe_dump(options.as_dict()))
    return str(path)


def write_untrained_run(options: TrainOptions) -> checkpoints.Checkpoint:
    """Write a run with one checkpoint, of a model with its first weights."""
    import torch

    from gmg_model import create_model

    plan = make_plan(options)
    torch.manual_seed(0)
    model = create_model(options.model.name, **plan.model_overrides)
    record = {
        "step": 0,
        "epoch": 0,
        "finished": False,
        "validation_loss": None,
        "device": "cpu",
        **plan.as_dict(),
    }
    with lease.hold(options.run, what="run"):
        run_folder.write_record(options, plan.store.fingerprint)
    folder = Path(options.run) / checkpoints.directory_name(0)
    folder.mkdir()
    weights = model.state_dict() | checkpoints.data_tensors(plan.normalisation, plan.static)
    checkpoints.write(folder, record, weights, {})
    return checkpoints.load_checkpoint(str(folder))
