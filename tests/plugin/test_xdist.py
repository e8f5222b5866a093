"""The plugin under xdist: the same rows from any number of workers, and what a crash costs."""

import json

import pytest
import torch

from ..conftest import Project
from .test_sessions import rows, verdicts

KILLER = """
import os, signal
from torch import nn

class Killer(nn.BatchNorm2d):
    def forward(self, x):
        if len(x) > 2 and self.training:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
"""

# Stands for a machine of two GPUs: the workers report the device that they were given.
TWO_GPUS = """
import dataclasses, torch
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_name = lambda index: "fake"
import normbench.engine.benchmark as benchmark
real = benchmark.train
benchmark.load_dataset = lambda name, root, device: real_load(name, root, torch.device("cpu"))
from normbench.training.data import load_dataset as real_load
benchmark.train = lambda spec, data, device, *rest: dataclasses.replace(
    real(spec, data, torch.device("cpu"), *rest), device=str(device))
pytest_plugins = ["normbench.plugin"]
"""


def measured(project: Project) -> dict[str, tuple]:
    return {
        json.dumps(row["spec"], sort_keys=True): (row["status"], row["test_accuracy"])
        for row in rows(project)
    }


def test_any_number_of_workers_leaves_the_same_rows(project, one_thread):
    # equal thread counts, as results are the same to the bit only with those
    torch.set_num_threads(1)
    found = []
    for arguments in (["-p", "no:xdist"], ["-n", "0"], ["-n", "2"], ["-n", "4"]):
        project.pytester.runpytest_inprocess("bench", *arguments).assert_outcomes(passed=4)
        found.append(measured(project))
        assert set(verdicts(project).values()) == {"passed"}
    assert len(found[0]) == 4
    assert found[1:] == found[:1] * 3


def test_workers_share_the_cores_and_sign_their_rows(project, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    result = project.pytester.runpytest_inprocess("bench", "-n", "2")
    result.assert_outcomes(passed=4)
    assert {row["worker"] for row in rows(project)} <= {"gw0", "gw1"}
    assert {row["threads"] for row in rows(project)} == {4}


def test_a_killed_worker_costs_only_its_own_case(project):
    project.write("killer.py", KILLER)
    result = project.run_apart("-n", "2", "--bench-norm", "killer:Killer")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcome = result.parseoutcomes()
    assert (outcome["passed"], outcome["failed"]) == (4, 2)
    crashed = {case for case, verdict in verdicts(project).items() if verdict == "crashed"}
    assert crashed == {"tiny-killer:Killer-none-b64", "tiny-killer:Killer-l1:0.001-b64"}
    assert sorted(row["status"] for row in rows(project)) == ["crashed"] * 2 + ["ok"] * 4
    result.stdout.fnmatch_lines(["killer:Killer *crashed*"])


def test_workers_are_spread_over_the_gpus(project):
    project.pytester.makeconftest(TWO_GPUS)
    project.grid(norms=["batch", "layer", "group:2", "group:4"])
    project.run_apart("-n", "4").assert_outcomes(passed=8)
    by_worker = {row["worker"]: row["device"] for row in rows(project)}
    assert set(by_worker.values()) == {"cuda:0", "cuda:1"}
    assert len(by_worker) == 4


def test_one_gpu_is_shared_by_all_workers(project):
    project.pytester.makeconftest(TWO_GPUS)
    project.run_apart("-n", "2", "--bench-device", "cuda:1").assert_outcomes(passed=4)
    assert {row["device"] for row in rows(project)} == {"cuda:1"}


def test_bad_input_ends_the_session_before_workers_train(project):
    (project.path / "file").write_text("")
    result = project.run_apart("-n", "2", "--bench-results", "file/results")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: cannot write results to *"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_tests_of_ones_own_that_are_called_as_a_grid_open_no_session(project):
    project.write(
        "bench/test_other.py",
        "import pytest\n@pytest.mark.parametrize('name', ['tiny'])\ndef test_other(name): pass\n",
    )
    result = project.run_apart("-n", "2", "-k", "test_other")
    result.assert_outcomes(passed=1)
    assert not (project.path / "results").exists()
