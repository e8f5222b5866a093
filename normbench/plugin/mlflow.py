"""Feeds MLflow with each session that ends: ``-p normbench.plugin.mlflow``.

Where to is said by MLflow's own environment: MLFLOW_TRACKING_URI, and MLFLOW_EXPERIMENT_NAME or
MLFLOW_EXPERIMENT_ID; without the latter two, the experiment is called ``normbench``. A session is a
run, and each of its cases a run below it.

MLflow comes with the extra ``mlflow``: ``pip install 'normbench[mlflow]'``.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from normbench.results import Runs
    from normbench.storage.session import StoredSession

EXPERIMENT = "normbench"

# Tags by which MLflow itself nests runs, and shows their commit.
PARENT, COMMIT = "mlflow.parentRunId", "mlflow.source.git.commit"
VERDICT = "normbench.verdict"

# What a request may hold at most.
# Source: https://mlflow.org/docs/latest/rest-api.html, "Log Batch".
MOST_METRICS, LONGEST_PARAMETER = 1000, 6000

# What is logged of each epoch, with the epoch as its step.
CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")

# What is logged of a case as a whole, of those that its document has.
FIGURES = ("margin_of_error", "best_test_accuracy", "train_seconds", "test_seconds", "cpu_seconds")

# A metric's name and step, and its value.
Metrics = dict[tuple[str, int], float]

# When something began and ended.
Times = tuple[str, str]


def pytest_configure(config: pytest.Config) -> None:
    """Make sure of MLflow before anything trains; raise pytest.UsageError where it is not there."""
    if hasattr(config, "workerinput") or find_spec("mlflow") is not None:
        return
    raise pytest.UsageError(
        "-p normbench.plugin.mlflow: expected MLflow, which is not installed: install it with "
        "pip install 'normbench[mlflow]', or leave the option out"
    )


def pytest_bench_session_finished(session: StoredSession) -> None:
    """Log the session as a run, with a run below it for each case, its report and its tables."""
    from normbench.report.exports import session_document

    document = session_document(session)
    tracker = Tracker()
    times = document["started"], document["ended"]
    run = tracker.start(session.name, times, _tags(document))
    tracker.log(run, _parameters(document), _counts(document))
    # MLflow prints two links for each run that ends: those of a hundred cases hide the summary
    with redirect_stdout(io.StringIO()):
        for case in document["cases"]:
            if case["verdict"] is not None:
                _log_case(tracker, run, case, session.runs(session.cases[case["id"]]), times)
    tracker.keep(run, session)
    finished = document["status"] == "finished"
    tracker.end(run, times, _status(document["passed"]) if finished else "KILLED")


def _log_case(
    tracker: Tracker, parent: str, case: Mapping[str, Any], runs: Runs, times: Times
) -> None:
    """Log a case as a run below its session's; the session's times stand in for unknown ones."""
    from normbench.analysis.verdicts import NOT_FAILED

    times = _times(runs) or times
    run = tracker.start(case["id"], times, {PARENT: parent, VERDICT: case["verdict"]})
    given = {"grid": case["grid"], "target": case["target"], **case["spec"]}
    tracker.log(run, given, {**_curves(runs), **_figures(case)})
    tracker.end(run, times, _status(case["verdict"] in NOT_FAILED))


def _status(good: bool) -> str:
    return "FINISHED" if good else "FAILED"


class Tracker:
    """MLflow's client, and the experiment that its environment names."""

    def __init__(self) -> None:
        import mlflow

        self.client = mlflow.MlflowClient()
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment(mlflow)

    @staticmethod
    def _experiment(mlflow: Any) -> str:
        """Return the id of the experiment, which is made where there is none of its name."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        return str(mlflow.set_experiment(name).experiment_id)

    def start(self, name: str, times: Times, tags: Mapping[str, str]) -> str:
        """Begin a run; return its id."""
        begun = _milliseconds(times[0])
        run = self.client.create_run(self.experiment, begun, dict(tags), run_name=name)
        return str(run.info.run_id)

    def log(self, run: str, parameters: Mapping[str, object], metrics: Metrics) -> None:
        """Log parameters that are not empty, and metrics, in as few requests as MLflow allows."""
        from mlflow.entities import Metric, Param

        given = [
            Param(name, str(value)[:LONGEST_PARAMETER])
            for name, value in parameters.items()
            if value not in (None, "", [])
        ]
        self.client.log_batch(run, params=given)
        now = _milliseconds(datetime.now().astimezone().isoformat())
        values = [Metric(name, value, now, step) for (name, step), value in metrics.items()]
        for first in range(0, len(values), MOST_METRICS):
            self.client.log_batch(run, metrics=values[first : first + MOST_METRICS])

    def keep(self, run: str, session: StoredSession) -> None:
        """Store the session's report and tables with its run."""
        for name in ("report.html", "summary.md", "session.json"):
            if (file := session.folder / name).is_file():
                self.client.log_artifact(run, str(file))
        if (tables := session.folder / "tables").is_dir():
            self.client.log_artifacts(run, str(tables), "tables")

    def end(self, run: str, times: Times, status: str) -> None:
        """End a run; of those that MLflow knows, ``status`` is FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run, status, _milliseconds(times[1]))


def _milliseconds(time: str) -> int:
    return int(1000 * datetime.fromisoformat(time).timestamp())


def _times(runs: Runs) -> Times | None:
    """Return when the first run of a case was begun and the last one ended, where rows say so."""
    timed = [(run.started, run.ended) for run in runs if run.started and run.ended]
    return (min(timed)[0], max(ended for _, ended in timed)) if timed else None


def _tags(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what sessions are searched by."""
    environment = document["environment"]
    tags = {
        VERDICT: "passed" if document["passed"] else "failed",
        "normbench.status": document["status"],
        "normbench.torch": environment.get("torch"),
        "normbench.planted": document["planted"],
        # of a folder with changes since, it ends in a plus
        COMMIT: (environment.get("commit") or "").removesuffix("+"),
    }
    return {name: value for name, value in tags.items() if value}


def _parameters(document: Mapping[str, Any]) -> dict[str, object]:
    """Return what the session ran with: its environment, and its options by their names."""
    options = {f"bench-{name.replace('_', '-')}": v for name, v in document["options"].items()}
    return {**document["environment"], "workers": document["workers"], **options}


def _counts(document: Mapping[str, Any]) -> Metrics:
    """Return how many cases, claims, checks and traces came to what, and the seconds."""
    counts = {
        (f"{what} {found}", 0): float(number)
        for what, numbers in document["counts"].items()
        for found, number in numbers.items()
    }
    return {**counts, ("seconds", 0): document["seconds"]}


def _curves(runs: Runs) -> Metrics:
    """Return the figures of each epoch, as means over the runs that ended well."""
    finished = [run.epochs for run in runs if run.status == "ok"]
    return {
        (name, epochs[0].epoch): math.fsum(getattr(e, name) for e in epochs) / len(epochs)
        for epochs in zip(*finished, strict=False)
        for name in CURVES
    }


def _figures(case: Mapping[str, Any]) -> Metrics:
    """Return what is known of a case as a whole, and its difference from the baseline."""
    beside = case["beside_baseline"] or {}
    figures = {name: case[name] for name in FIGURES}
    figures |= {"runs": float(case["n"]), "difference": beside.get("difference")}
    return {(name, 0): value for name, value in figures.items() if value is not None}
