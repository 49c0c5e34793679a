"""Shell and Docker files pass their linters, shellcheck and hadolint."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

BIN = Path(sys.executable).parent
CLUSTER_FILES = ["ray_cluster.yaml", "infra/gcp_cluster.yaml", "infra/local_cluster.yaml"]
DOCKERFILE = ROOT / "infra" / "Dockerfile"


def shellcheck(script: str) -> str:
    """Return the output of shellcheck for a script; it is empty if there are no problems."""
    command = [str(BIN / "shellcheck"), "--format", "gcc", "--shell", "bash", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def hadolint(dockerfile: str) -> str:
    done = subprocess.run(
        [str(BIN / "hadolint"), "--no-color", "-"], input=dockerfile, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_the_linters_find_what_is_wrong() -> None:
    assert "SC2086" in shellcheck("folder=$1\nrm -r $folder/old\n")
    assert "DL3002" in hadolint(DOCKERFILE.read_text().replace("USER 1000", "USER root"))
    assert "DL3015" in hadolint(DOCKERFILE.read_text().replace("--no-install-recommends", ""))


def test_scripts_pass() -> None:
    scripts = [path for path in (ROOT / ".ci").iterdir() if path.is_file()]
    assert scripts
    for path in scripts:
        assert shellcheck(path.read_text()) == ""


@pytest.mark.parametrize("file", CLUSTER_FILES)
def test_commands_of_the_cluster_files_pass(file: str) -> None:
    config = yaml.safe_load((ROOT / file).read_text())
    kinds = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    commands = [command for kind in kinds for command in config[kind]]
    assert len(commands) > 4
    assert shellcheck("\n".join(commands) + "\n") == ""


def test_the_image_passes() -> None:
    assert hadolint(DOCKERFILE.read_text()) == ""


def test_commands_of_the_page_on_clusters_pass() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    blocks = re.findall(r"(?ms)^```\n(.*?)^```", page)
    assert len(blocks) >= 2
    for block in blocks:
        # Readers replace the placeholders in angle brackets.
        assert shellcheck(re.sub(r"<[^>\n]+>", "filled-in", block)) == "", block
