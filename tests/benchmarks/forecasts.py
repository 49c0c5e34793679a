"""What scoring and batch inference add to the model itself, and a first forecast from nothing.

`python tests/benchmarks/forecasts.py` converts a synthetic year of 32 x 64 fields, makes an
untrained GMG-s of the default size (12 -> 12 frames, patch 2), and times in turn, in one process
with the same threads: the model alone on batches that are in memory; the pass of an evaluation over
windows of the store (every score of every protocol, persistence and climatology beside); that pass
with a forecast that costs nothing, which leaves reading and scoring; and batch inference to a
store. As no accelerator may be at hand, a stand-in for one, which waits 10 ms a window and computes
nothing here, is timed alone and under an evaluation: reading and scoring go on beside it. Then,
each in a process of its own: the export and a first forecast of GMG-s at its defaults
(10 -> 10 frames of 64 x 64, patch 4), and the peak memory of scoring few windows and many.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from figures import (
    Requirement,
    add_json_option,
    alternate,
    print_requirements,
    print_table,
    say,
    write_json,
)
from ray_processes import peak_own_bytes

ROOT = Path(__file__).resolve().parents[2]
MODEL, PASS, NO_MODEL, PREDICT = (
    "the model alone, resident batches",
    "evaluate: the pass",
    "evaluate: the pass without a model",
    "predict: to a store",
)
ON_CORES = (MODEL, PASS, NO_MODEL, PREDICT)
ELSEWHERE_SECONDS = 0.01
"""a window, of the stand-in for a model on an accelerator: it occupies no processor"""
ELSEWHERE_WINDOWS = 512
ELSEWHERE, ELSEWHERE_PASS = "the stand-in alone", "evaluate: the pass of the stand-in"
FEW, MANY = 300, 1500
"""windows of the runs whose memory is compared"""
COLD = """
import json, sys, time
began = time.perf_counter()
import gmg_model
import torch
imported = time.perf_counter()
forecaster = gmg_model.load_exported(sys.argv[1])
loaded = time.perf_counter()
import numpy
forecaster(numpy.zeros((10, 1, 64, 64), "float32"), horizon=10)
ended = time.perf_counter()
parts = {"import": imported - began, "load": loaded - imported, "forecast": ended - loaded}
print(json.dumps(parts))
"""


class Bench:
    """A store, a checkpoint of an untrained model, and the sides that are timed."""

    def __init__(self, folder: Path, windows: int, batch: int, hidden: int):
        from pipelines.inputs.normalisation import Normalisation
        from pipelines.stores.store import open_store
        from pipelines.stream.windows import WindowSpec, split_starts

        self.folder, self.batch = folder, batch
        self.store = open_store(str(folder / "store.zarr"))
        self.window = WindowSpec(12, 12)
        constants = Normalisation.from_store(self.store, ("t2m",), "standardise")
        overrides = {"in_shape": (1, 32, 64), "patch_size": 2, "hidden": (hidden,) * 4}
        self.checkpoint = write_checkpoint(
            folder / "run", self.window, constants, overrides, self.store.fingerprint
        )
        self.all_starts = split_starts(self.store, "test", self.window)
        self.starts = self.all_starts[:windows]
        self._made = 0

    def scorer(self, forecast: Any) -> Any:
        """As `evaluate` makes it."""
        from jobs.forecasts.scoring.blocks import Scorer
        from jobs.forecasts.scoring.protocols import Selection, channel_groups
        from pipelines.inputs.climatology import climatology

        constants = self.checkpoint.normalisation
        groups = channel_groups(self.store, ("t2m",))
        return Scorer(
            store=self.store,
            forecast=forecast,
            variables=("t2m",),
            window=self.window,
            normalisation=constants,
            groups=tuple(groups),
            protocols=(Selection().protocols_of(self.store, groups[0], constants.kind, groups),),
            climatology=climatology(self.store, ("t2m",)),
            moves=False,
            batch_size=self.batch,
            maps=True,
        )

    def model_alone(self) -> Callable[[], float]:
        """Seconds for the windows' forecasts, on frames that are in memory and normalised."""
        from jobs.forecasts.forecasters.model_forecast import TrainedForecast

        forecast = TrainedForecast(self.checkpoint)
        frames = np.random.default_rng(0).normal(size=(self.batch, 12, 1, 32, 64))
        resident = frames.astype(np.float32)
        forecast(resident[:1], 12)

        def run() -> float:
            began = time.perf_counter()
            for _ in range(len(self.starts) // self.batch):
                forecast.members(resident, 12, range(self.batch))
            return time.perf_counter() - began

        return run

    def scored(self, forecast: Any, starts: np.ndarray) -> Callable[[], float]:
        """Seconds of the pass over the windows."""
        from jobs.forecasts.scoring.blocks import blocks_of
        from jobs.forecasts.scoring.sums import WindowGroups

        scorer = self.scorer(forecast)
        groups = WindowGroups.of(self.store, self.window, starts)
        list(scorer.score(starts, groups, [slice(0, 1)]))

        def run() -> float:
            began = time.perf_counter()
            list(scorer.score(starts, groups, blocks_of(len(starts))))
            return time.perf_counter() - began

        return run

    def stand_in(self) -> Callable[[], float]:
        """Seconds of the stand-in for as many windows."""
        frames = np.zeros((self.batch, 12, 1, 32, 64), np.float32)

        def run() -> float:
            began = time.perf_counter()
            for _ in range(ELSEWHERE_WINDOWS // self.batch):
                elsewhere(frames, 12)
            return time.perf_counter() - began

        return run

    def predict(self) -> float:
        """Seconds to write as many forecasts to a new store."""
        from jobs.forecasts.prediction.options import PredictionOptions
        from jobs.forecasts.prediction.predict import predict

        self._made += 1
        inits = self.store.times[self.starts + 11].astype("datetime64[s]")
        began = time.perf_counter()
        forecasts = str(self.folder / f"forecasts-{self._made}.zarr")
        options = PredictionOptions(
            self.checkpoint.uri,
            store=self.store.uri,
            forecasts=forecasts,
            first=str(inits[0]),
            last=str(inits[-1]),
            batch_size=self.batch,
        )
        predict(self.checkpoint, self.store, forecasts, options)
        return time.perf_counter() - began


def elsewhere(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
    """The last frame again, after the time of the stand-in."""
    time.sleep(ELSEWHERE_SECONDS * len(frames_btchw))
    return np.repeat(frames_btchw[:, -1:], horizon, axis=1)


def make_store(folder: Path) -> None:
    """A synthetic year."""
    from pipelines.archives.synthetic import write_weatherbench
    from pipelines.conversion.convert import convert
    from pipelines.conversion.options import ConversionRequest

    write_weatherbench(folder / "archive", [2014])
    uri = str(folder / "store.zarr")
    convert(ConversionRequest("weatherbench", str(folder / "archive"), uri))


def write_checkpoint(
    run: Path, window: Any, constants: Any, overrides: dict[str, Any], fingerprint: str
) -> Any:
    """A checkpoint of GMG-s with its first weights."""
    import torch

    from gmg_model import create_model
    from jobs.training.run import checkpoints

    torch.manual_seed(0)
    model = create_model("gmg-s", **overrides)
    place = run / checkpoints.directory_name(0)
    place.mkdir(parents=True)
    record = {
        "step": 0,
        "epoch": 0,
        "finished": False,
        "validation_loss": None,
        "options": {},
        "model": {"name": "gmg-s", "overrides": overrides},
        "variables": list(constants.labels),
        "grid": overrides["in_shape"][1:],
        "window": asdict(window),
        "normalisation": constants.as_dict(),
        "statistics_fingerprint": fingerprint,
    }
    checkpoints.write(place, record, model.state_dict(), {})
    return checkpoints.load_checkpoint(str(place))


def first_forecast(folder: Path, repeats: int) -> dict[str, float]:
    """Medians of the parts: export, import, load, forecast, and a whole process from its start."""
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stream.windows import WindowSpec

    run = folder / "default-run"
    constants = Normalisation("minmax", ("image",), (0.0,), (1.0,))
    write_checkpoint(run, WindowSpec(10, 10), constants, {"in_shape": (1, 64, 64)}, "")
    parts: list[dict[str, float]] = []
    for repeat in range(repeats):
        say(f"run {repeat + 1} of {repeats}: export and first forecast")
        target = folder / f"exported-{repeat}"
        began = time.perf_counter()
        own(["jobs/export.py", "--run", str(run), "--to", str(target)])
        exported = time.perf_counter()
        found = json.loads(own(["-c", COLD, str(target)]))
        whole = time.perf_counter() - exported
        parts.append({"export": exported - began, **found, "process": whole})
    return {name: statistics.median(part[name] for part in parts) for name in parts[0]}


def own(arguments: list[str]) -> str:
    """What a Python process of its own printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def peak_of_scoring(folder: Path, windows: int) -> None:
    """Print the peak memory of an evaluation with persistence for a model."""
    from jobs.forecasts.forecasters.baselines import persistence
    from jobs.forecasts.scoring.evaluate import ForecastSystem, evaluate
    from jobs.forecasts.scoring.options import EvaluationOptions
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import open_store
    from pipelines.stream.windows import WindowSpec

    store = open_store(str(folder / "store.zarr"))
    normalisation = Normalisation.from_store(store, ("t2m",), "standardise")
    system = ForecastSystem(persistence, ("t2m",), WindowSpec(12, 12), normalisation)
    evaluate(store, system, EvaluationOptions("", store.uri, "", max_windows=windows))
    print(json.dumps(peak_own_bytes()))


def print_rates(seconds: dict[str, list[float]], windows: int, alone: str) -> None:
    """A table of windows a second, beside those of the model alone."""
    typical = {name: statistics.median(runs) for name, runs in seconds.items()}
    print_table(
        ("", "windows/s (median)", "seconds", "of the model's rate"),
        [
            (
                name,
                f"{windows / typical[name]:,.2f}",
                f"{min(runs):.2f} to {max(runs):.2f}",
                f"{typical[alone] / typical[name]:.0%}",
            )
            for name, runs in seconds.items()
        ],
    )


def main() -> None:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=16, help="windows of a run")
    parser.add_argument("--batch", type=int, default=8, help="windows in one forward pass")
    parser.add_argument("--hidden", type=int, default=128, help="channels of each of four cells")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.peak:
        peak_of_scoring(options.folder, options.peak)
        return
    with tempfile.TemporaryDirectory(prefix="gmg-bench-") as name:
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Every part in turn."""
    import torch

    from jobs.forecasts.forecasters.baselines import persistence
    from jobs.forecasts.forecasters.model_forecast import TrainedForecast

    torch.set_num_threads(options.threads)
    make_store(folder)
    bench = Bench(folder, options.windows, options.batch, options.hidden)
    sides = {
        MODEL: bench.model_alone(),
        PASS: bench.scored(TrainedForecast(bench.checkpoint), bench.starts),
        NO_MODEL: bench.scored(persistence, bench.starts),
        PREDICT: bench.predict,
    }
    seconds = alternate(sides, options.repeats)
    beside = {
        ELSEWHERE: bench.stand_in(),
        ELSEWHERE_PASS: bench.scored(elsewhere, bench.all_starts[:ELSEWHERE_WINDOWS]),
    }
    seconds |= alternate(beside, options.repeats)
    cold = first_forecast(folder, options.repeats)
    peaks = {}
    for windows in (FEW, MANY):
        say(f"memory of scoring {windows} windows")
        command = [str(Path(__file__)), "--peak", str(windows), "--folder", str(folder)]
        peaks[windows] = json.loads(own(command).splitlines()[-1])
    report(seconds, cold, peaks, options)


def report(
    seconds: dict[str, list[float]],
    cold: dict[str, float],
    peaks: dict[int, int],
    options: argparse.Namespace,
) -> None:
    """The tables, and what is required."""
    typical = {name: statistics.median(runs) for name, runs in seconds.items()}
    print(
        f"\nGMG-s, {options.hidden} channels, 12 -> 12 frames of 32 x 64, patch 2, fp32, "
        f"{options.windows} windows in batches of {options.batch}, {options.threads} thread(s)."
    )
    print_rates({name: seconds[name] for name in ON_CORES}, options.windows, MODEL)
    print(
        "\nA stand-in for a model on an accelerator: it takes "
        f"{ELSEWHERE_SECONDS * 1e3:.0f} ms per window and uses no processor in that time. "
        f"{ELSEWHERE_WINDOWS} windows."
    )
    beside = {name: seconds[name] for name in (ELSEWHERE, ELSEWHERE_PASS)}
    print_rates(beside, ELSEWHERE_WINDOWS, ELSEWHERE)
    print(
        "\nA first forecast by GMG-s with default options: one window of 10 -> 10 frames of "
        "64 x 64. Export and forecast each run in a new process. Medians."
    )
    print_table(
        ("", "seconds"),
        [
            ("export: a process", f"{cold['export']:.2f}"),
            ("forecast: a process, from start to end", f"{cold['process']:.2f}"),
            ("of that: importing PyTorch and this package", f"{cold['import']:.2f}"),
            ("of that: reading the weights", f"{cold['load']:.2f}"),
            ("of that: the forecast", f"{cold['forecast']:.2f}"),
        ],
    )
    print("\nPeak resident memory of one process that scores persistence.")
    rows = [(f"{windows} windows", f"{peak / 1e6:,.0f}") for windows, peak in peaks.items()]
    print_table(("", "MB (10^6 bytes)"), rows)
    requirements = [
        Requirement(
            "evaluate, relative to the rate of the model", typical[MODEL] / typical[PASS], 0.9, "x"
        ),
        Requirement(
            "predict, relative to the rate of the model",
            typical[MODEL] / typical[PREDICT],
            0.9,
            "x",
        ),
        Requirement(
            "evaluate, relative to the rate of the stand-in",
            typical[ELSEWHERE] / typical[ELSEWHERE_PASS],
            0.9,
            "x",
        ),
        Requirement(
            "reading and scoring, relative to the forward pass",
            typical[NO_MODEL] / typical[MODEL],
            0.1,
            "x",
            most=True,
        ),
        Requirement(
            "export and a first forecast, each in a new process",
            cold["export"] + cold["process"],
            5,
            " s",
            most=True,
        ),
        Requirement(
            f"memory, {MANY} windows against {FEW}", peaks[MANY] / peaks[FEW], 1.1, "x", most=True
        ),
    ]
    print_requirements(requirements)
    figures = {"seconds": seconds, "first_forecast": cold, "peak_bytes": peaks}
    write_json(options.json, figures, requirements)


if __name__ == "__main__":
    main()
