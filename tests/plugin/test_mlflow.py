"""MLflow as a tracker: what a server has of a session, and what is said where MLflow is not."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from normbench.plugin import mlflow as plugin
from normbench.report.tables import write_tables
from normbench.storage.session import read_session

from ..conftest import Project
from ..storage.stored import edit_document, golden_copy

NEEDS_MLFLOW = pytest.mark.skipif(
    find_spec("mlflow") is None or find_spec("sqlalchemy") is None,
    reason="MLflow is not installed: pip install 'normbench[mlflow]'",
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a server of a database of its own, and name it as a user does; return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1"),
        *("--artifacts-destination", str(tmp_path / "artifacts")),
    ]
    address = f"http://127.0.0.1:{port}"
    # the host's proxy would answer in its place
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        _wait_for(f"{address}/health", process)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        assert process.poll() is None, "the server has ended"
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


@NEEDS_MLFLOW
def test_a_server_has_the_session_and_a_run_for_each_case(
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "nightly")
    folder = golden_copy("session-2", tmp_path)
    edit_document(folder, environment={"torch": "2.15.0", "commit": "abc123+", "gpus": []})
    session = read_session(folder)
    write_tables(session)
    plugin.pytest_bench_session_finished(session)
    client: Any = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("nightly").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    top = runs.pop(session.name)
    assert runs.keys() == {stored.case.id for stored in session.judged_cases}
    assert top.info.status == "FAILED"
    assert top.data.tags["normbench.verdict"] == "failed"
    assert top.data.tags["mlflow.source.git.commit"] == "abc123"
    assert top.data.params["torch"] == "2.15.0"
    assert top.data.params["bench-tier"] == session.document.options["tier"]
    assert top.data.metrics["cases failed"] == 3
    assert top.data.metrics["outcomes regression"] == 2
    kept = {file.path for file in client.list_artifacts(top.info.run_id)}
    assert kept == {"session.json", "tables"}
    # a link to the session, and none to each case
    links = [line for line in capsys.readouterr().out.splitlines() if "View run" in line]
    assert [session.name in link for link in links] == [True]
    batch = runs["tiny-batch-l2:0.001-b64"]
    assert batch.data.tags["mlflow.parentRunId"] == top.info.run_id
    assert (batch.info.status, batch.data.params["norm"]) == ("FINISHED", "batch")
    assert runs["tiny-own_norms:Diverging-l2:0.001-b64"].info.status == "FAILED"
    (run,) = session.runs(session.cases["tiny-batch-l2:0.001-b64"])
    history = client.get_metric_history(batch.info.run_id, "test_accuracy")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [
        (epoch.epoch, pytest.approx(epoch.test_accuracy)) for epoch in run.epochs
    ]
    assert batch.data.metrics["difference"] == pytest.approx(-0.0070527, abs=1e-7)


def test_without_mlflow_the_extra_is_named_and_nothing_is_trained(alone: Project) -> None:
    if find_spec("mlflow") is not None:
        pytest.skip("MLflow is installed")
    result = alone.run("-p", "normbench.plugin.mlflow")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pip install 'normbench?mlflow?', or leave the option out*"])
    assert not alone.results.exists()
