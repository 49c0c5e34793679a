"""Curves of a run on an MLflow server, over its REST interface.

The client package of MLflow would bring about twenty others, a web framework among them, for the
few requests made here.

After each checkpoint the server is sent the steps up to it. The number of steps that it has is a
tag of the MLflow run. So a resumed training goes on behind them, and no point is sent twice. A
server that is away does not disturb the training: what it missed is sent with the next checkpoint.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from jobs.training.run.tensorboard import points
from pipelines.errors import UsageError

LOGGED = "gmg.steps_logged"
"""tag of an MLflow run: the number of steps that the server has"""
PLACE = "gmg.run"
"""tag of an MLflow run: the URI of the run"""
MOST_METRICS = 1000
"""metrics in one request: MLflow's own limit"""
MOST_PARAMETERS = 100
"""parameters in one request: MLflow's own limit"""
LONGEST_VALUE = 500
"""characters of a parameter's value: MLflow's own limit"""
TIMEOUT_SECONDS = 20.0
"""for one request, so that a server that hangs does not hold up the upload of checkpoints"""


class ServerError(Exception):
    """The server refused a request or did not answer."""


class MLflowRun:
    """One run on the server. It is found by its URI, or created.

    Parameters
    ----------
    server:
        `http://HOST:PORT`.
    experiment:
        Name of the experiment. It is created if it is missing.
    place:
        URI of the run, which identifies it on the server.
    """

    def __init__(self, server: str, experiment: str, place: str):
        self._server, self._experiment, self._place = server.rstrip("/"), experiment, place
        self._run_id = ""
        self.logged = 0
        """number of steps that the server has"""

    def open(self, parameters: Mapping[str, Any]) -> None:
        """Find the run on the server, or create it with these parameters.

        Raises
        ------
        ServerError
            The server cannot be used.
        """
        experiment_id = self._experiment_id()
        found = self._ask(
            "runs/search",
            {
                "experiment_ids": [experiment_id],
                "filter": f"tags.`{PLACE}` = '{self._place}'",
                "max_results": 1,
            },
        ).get("runs", [])
        if found:
            self._run_id = found[0]["info"]["run_id"]
            tags = {tag["key"]: tag["value"] for tag in found[0]["data"].get("tags", [])}
            self.logged = int(tags.get(LOGGED, 0))
            self._ask("runs/update", {"run_id": self._run_id, "status": "RUNNING"})
            return
        created = self._ask(
            "runs/create",
            {
                "experiment_id": experiment_id,
                "run_name": self._place.rstrip("/").rsplit("/", 1)[-1],
                "start_time": _milliseconds(time.time()),
                "tags": [{"key": PLACE, "value": self._place}],
            },
        )
        self._run_id = created["run"]["info"]["run_id"]
        params = [
            {"key": key, "value": str(value)[:LONGEST_VALUE]} for key, value in parameters.items()
        ]
        for first in range(0, len(params), MOST_PARAMETERS):
            self._log(params=params[first : first + MOST_PARAMETERS])

    def log(self, steps: Sequence[dict[str, Any]]) -> None:
        """Send the records of steps that the server does not have yet, in order.

        Raises
        ------
        ServerError
            The server cannot be used. `logged` is the number of steps that it has.
        """
        missing = [record for record in steps if record["step"] >= self.logged]
        size = MOST_METRICS // 8  # each record holds fewer than 8 curves
        for first in range(0, len(missing), size):
            part = missing[first : first + size]
            metrics = [
                {"key": tag, "value": value, "step": step, "timestamp": _milliseconds(moment)}
                for step, tag, value, moment in points(part)
            ]
            done = part[-1]["step"] + 1
            # In one request, so that the server has both or neither.
            self._log(metrics=metrics, tags=[{"key": LOGGED, "value": str(done)}])
            self.logged = done

    def finish(self) -> None:
        """Mark the run as finished."""
        self._ask(
            "runs/update",
            {
                "run_id": self._run_id,
                "status": "FINISHED",
                "end_time": _milliseconds(time.time()),
            },
        )

    def _log(self, **content: Any) -> None:
        self._ask("runs/log-batch", {"run_id": self._run_id, **content})

    def _experiment_id(self) -> str:
        query = urlencode({"experiment_name": self._experiment})
        try:
            found = self._ask(f"experiments/get-by-name?{query}")
        except ServerError as error:
            if "RESOURCE_DOES_NOT_EXIST" not in str(error):
                raise
            return self._ask("experiments/create", {"name": self._experiment})["experiment_id"]
        return found["experiment"]["experiment_id"]

    def _ask(self, what: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._server}/api/2.0/mlflow/{what}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json", **_credentials()},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            text = error.read(500).decode(errors="replace")
            raise ServerError(f"{what.split('?')[0]}: {error.code} {text}") from None
        except (OSError, ValueError) as error:
            raise ServerError(f"{what.split('?')[0]}: {error}") from None


def check_server(server: str, experiment: str) -> None:
    """Raise UsageError if the MLflow server cannot be used, before any compute is spent."""
    try:
        MLflowRun(server, experiment, "")._experiment_id()
    except ServerError as error:
        raise UsageError(
            f"the MLflow server cannot be used: {error}",
            where=server,
            remedy="start it (mlflow server --port 5000), check --tracking.mlflow_uri and the "
            "credentials in MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME, or leave it out",
        ) from None


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _credentials() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"Authorization": f"Bearer {token}"}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if not user:
        return {}
    pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
