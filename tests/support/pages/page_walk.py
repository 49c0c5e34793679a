"""Run the commands and the Python of a documentation page in order, in this process."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.forecasts.reports import evaluation_page
from jobs.training.driver import job as training
from jobs.training.options import TrainOptions
from tests.support.pages.pages import page_commands, page_python
from tests.support.processes.training_runs import job, write_untrained_run

SHELL = ("printf",)
"""commands other than jobs that are run unchanged"""

ELSEWHERE = {
    "train_radar.py": "tests/jobs/test_train_radar.py: from composites to the page",
    "study.py": "tests/jobs/test_study.py: a study from archive to tables",
}
"""job that runs other jobs -> the test that runs it completely"""
NOT_HERE = {
    "aws": "a cloud",
    "docker": "builds an image from the network: tests/infra/test_dockerfile.py reads the file",
    "gcloud": "a cloud",
    "kubectl": "a Kubernetes: tests/infra/test_kuberay.py checks what it would be given",
    "make": "sets up an environment, or runs what has tests of its own (jobs/demo.py, the tests)",
    "source": "of a shell",
    "export": "of a shell",
    "pip": "installs from the network",
    "ray": "wants a cluster with the job API: tests/cluster/test_job_submit.py starts one, and "
    "tests/cluster/test_elastic.py drains a node",
    "tensorboard": "a server for a browser: the event files are read in tests/jobs",
    "bash": "the checks of a landing, of which these tests are a part",
}
"""first word of a command -> the reason why it is not run here"""


def tiny(options: TrainOptions, every: int = 200) -> TrainOptions:
    """Return the options of a page's training for one or two steps of a model of four channels."""
    replace = dataclasses.replace
    return replace(
        options,
        use_gpu="false",
        model=replace(options.model, hidden=(4, 4), filter_size=3, attention_hidden=4),
        data=replace(options.data, every=every),
        training=replace(options.training, epochs=1, global_batch=2),
        validation=replace(options.validation, windows=2),
    )


class Untrained:
    """A replacement for a training that its page is not about: it writes a run of first weights."""

    def __init__(self, options: TrainOptions):
        run = Path(options.run).absolute()
        if not run.exists():
            write_untrained_run(dataclasses.replace(tiny(options, every=1), run=str(run)))

    def summary(self) -> str:
        return "a run with first weights"


@dataclasses.dataclass
class Walk:
    """The commands of one page, and the local replacements for the names on it."""

    folder: Path
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """word of a page -> path or word that replaces it"""
    runs: Mapping[str, Callable[[Path], None]] = dataclasses.field(default_factory=dict)
    """path that the page expects to exist -> function that makes it at its first use"""
    train: Callable[[TrainOptions], Any] = Untrained
    draws: bool = False
    """whether evaluations draw their page, which takes as long as everything else together"""
    walked: list[str] = dataclasses.field(default_factory=list)
    said: str = ""

    def page(self, page: Path, skip: Sequence[str] = ()) -> None:
        """Run the commands of a page in order; the exit code of each must be 0."""
        for command in page_commands(page):
            words = shlex.split(command)
            if words[0] in NOT_HERE or Path(words[1]).name in ELSEWHERE or command in skip:
                continue
            self.command(command)
        assert self.walked, page.name

    def command(self, command: str) -> None:
        """Run one command."""
        words = [self._here(word) for word in shlex.split(command)]
        for place, make in self.runs.items():
            if place in words and not (self.folder / place).exists():
                make(self.folder)
        self.walked.append(command)
        if words[0] in SHELL:
            subprocess.run(command, shell=True, check=True, cwd=self.folder)
            return
        assert words[0] == "python", command
        assert words[1].startswith("jobs/"), command
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(training, "train", self.train)
            if not self.draws:
                patch.setattr(evaluation_page, "render", lambda *_, **__: "not drawn")
            done = job(words[1].removeprefix("jobs/"), *words[2:])
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        self.said += done.stdout

    def python(self, page: Path, **given: Any) -> dict[str, Any]:
        """Run all Python of a page as one module, in the folder of its commands; return its names.

        `given` are names that the page expects the reader to have defined.
        """
        assert page_python(page), page.name
        names = {"__name__": page.stem, **given}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for code in page_python(page):
                above = page.read_text().partition(code)[0].count("\n")
                for place, here in self.places.items():
                    code = code.replace(f'"{place}"', f'"{here}"')
                # The blank lines give an error the line number that the code has on the page.
                exec(compile("\n" * above + code, str(page), "exec"), names)
        return names

    def _here(self, word: str) -> str:
        for place, here in self.places.items():
            if place.endswith("/") and word.startswith(place):
                return here + word[len(place) :]
        return self.places.get(word, word)
