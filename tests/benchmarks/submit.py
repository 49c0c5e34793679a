"""From `ray job submit` to the first optimiser step of a training on two CPU workers, in parts.

`python tests/benchmarks/submit.py` starts a Ray head with two CPUs, converts a small synthetic
archive, and submits the same small training several times as a user does, to a folder of its own
each time. The parts end where something is seen from outside: the client says that it has
submitted; the head starts the job's process; the job prints what it will train, so that it has
imported what it needs, has joined the cluster and has read the store; Ray Train's controller runs;
its workers' processes are there; and the run's history says when the first step was done.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Requirement, add_json_option, print_requirements, print_table, say, write_json

# The head of the tests: own ports, a token, nothing left behind.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.processes.ray_head import Head, ray_head
from tests.support.processes.training_runs import wait_until

GOAL = 25.0
"""seconds from submit to the first step"""
PARTS = (
    "the client: import, package, upload, submit",
    "the head: unpack, start the job's process",
    "the job: import, join the cluster, read the store, check the model",
    "Ray Train: its controller",
    "Ray Train: its workers' processes",
    "the workers: import, gloo, store, model; first batch and step",
)


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="submissions, after one that warms")
    add_json_option(parser)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="gmg-bench-") as name:
        folder = Path(name)
        store = convert_archive(folder)
        with ray_head("--num-cpus", "2") as head:
            runs = []
            for repeat in range(1 + options.repeats):
                say(f"submission {repeat} of {options.repeats}")
                runs.append(parts_of_one(head, store, str(folder / f"run-{repeat}")))
            head.stop()
            head.family.end(10)
    report(runs, options)


def convert_archive(folder: Path) -> str:
    """A store of one synthetic year, converted by a process that ends, so that Ray does as well."""
    store, here = str(folder / "store.zarr"), str(folder / "archive")
    script = (
        "import sys; from pathlib import Path; "
        "from pipelines.archives.synthetic import write_weatherbench; "
        "from pipelines.conversion.convert import ConversionRequest, convert; "
        "write_weatherbench(Path(sys.argv[1]), [2014]); "
        "convert(ConversionRequest('weatherbench', sys.argv[1], sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, here, store], check=True)
    return store


def parts_of_one(head: Head, store: str, run: str) -> list[float]:
    """Seconds of each part of one submission, whose job is stopped after a few steps."""
    job = f"measured-{Path(run).name}"
    command = [
        *("python", "jobs/train_weatherbench.py", "--store", store, "--run", run, "--workers", "2"),
        *("--model.hidden", "[8,8]", "--model.attention_hidden", "4", "--data.input_frames", "3"),
        *("--data.horizon", "3", "--data.every", "400", "--training.global_batch", "4"),
        *("--training.epochs", "1", "--validation.windows", "2", "--use_gpu", "false"),
    ]
    submitted = time.time()
    client = head.submit(*command, words=("--submission-id", job))
    accepted = started = headline = 0.0
    output = []
    for line in client.stdout or ():
        output.append(line)
        if "submitted successfully" in line:
            accepted = time.time()
        if "Running entrypoint" in line:
            started = time.time()
        if "train windows" in line:
            headline = time.time()
    if client.wait() != 0 or not accepted < started < headline:
        raise RuntimeError("the job failed:\n" + "".join(output))
    controller = actor_since(head, "TrainController", submitted)
    workers = actor_since(head, "RayTrainWorker", submitted)
    first = first_step(run)
    moments = [submitted, accepted, started, headline, controller, workers, first]
    return [after - before for before, after in itertools.pairwise(moments)]


def actor_since(head: Head, kind: str, since: float) -> float:
    """When the last actor of a kind that was started after a moment was alive, by the head."""
    begun: list[float] = []

    def is_told() -> bool:
        actors = head.ask("/logical/actors")["data"]["actors"].values()
        begun[:] = [a["startTime"] / 1e3 for a in actors if a["actorClass"] == kind]
        begun[:] = [moment for moment in begun if moment > since]
        return bool(begun)

    wait_until(is_told, f"the dashboard to know of a {kind}")
    return max(begun)


def first_step(run: str) -> float:
    """When the first step was done, by the history."""
    first = min((Path(run) / "history").iterdir())
    return json.loads(first.read_text().splitlines()[0])["time"]


def report(runs: list[list[float]], options: argparse.Namespace) -> None:
    """The table."""
    cold, warm = runs[0], runs[1:] or runs
    totals = [sum(parts) for parts in warm]
    print(
        "A training on two CPU workers of one machine, from `ray job submit` to the end of its "
        f"first optimiser step. Figures are medians of {len(warm)} submissions to a head node that "
        f"has run one job before. Load {os.getloadavg()[0]:.1f}."
    )
    rows = [
        (
            part,
            f"{statistics.median(parts[index] for parts in warm):.1f}",
            f"{min(parts[index] for parts in warm):.1f}",
            f"{max(parts[index] for parts in warm):.1f}",
            f"{cold[index]:.1f}",
        )
        for index, part in enumerate(PARTS)
    ]
    total = f"{statistics.median(totals):.1f}", f"{min(totals):.1f}", f"{max(totals):.1f}"
    rows.append(("**total**", *total, f"{sum(cold):.1f}"))
    print_table(("seconds", "median", "lowest", "highest", "first job"), rows)
    requirements = [
        Requirement("submit to first step", statistics.median(totals), GOAL, " s", most=True)
    ]
    print_requirements(requirements)
    write_json(options.json, {"parts": PARTS, "runs": runs}, requirements)


if __name__ == "__main__":
    main()
