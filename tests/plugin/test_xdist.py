"""The plugin under xdist: the same rows from any number of workers, and what a crash costs."""

import os

import pytest
import torch

from ..conftest import Project

# Each does what it should not in the first step of training, on more than the images of a check.
HARMFUL = """
import ctypes, os, resource, signal, time
import torch
from torch import nn

class Killer(nn.BatchNorm2d):
    def forward(self, x):
        if len(x) > 2 and self.training:
            self.harm()
        return super().forward(x)

    def harm(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Early(nn.BatchNorm2d):
    pass

class Exits(Killer):
    def harm(self):
        os._exit(0)

class Hangs(Killer):
    def harm(self):
        time.sleep(300)

class HoldsTheLock(Killer):
    def harm(self):
        # PyDLL does not give up Python's lock
        ctypes.PyDLL(None).sleep(300)

class Forks(Killer):
    def harm(self):
        if not hasattr(self, "forked"):
            self.forked = os.fork()

class Aborts(Killer):
    def harm(self):
        os.abort()

HOARD = []

class Leaks(Killer):
    def harm(self):
        # as where this is all the memory that there is
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        taken = 4096 * int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**29, most))
        while True:
            HOARD.append(torch.ones(2**22))

class RaisesInBackward(Killer):
    def forward(self, x):
        out = nn.BatchNorm2d.forward(self, x)
        if len(x) > 2 and self.training:
            out.register_hook(self.refuse)
        return out

    def refuse(self, gradient):
        raise RuntimeError("no gradient today")
"""

# Stands for a machine of two GPUs: each run says that it was on the device that its worker has.
TWO_GPUS = """
import dataclasses

import torch

from normbench.engine import runner
from normbench.training.trainer import train

torch.cuda.device_count = lambda: 2
torch.cuda.get_device_name = lambda index: "none"

class OnTwoGpus(runner.Runner):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, train=self.train_on_the_cpu, **named)
        self.given, self.device = self.device, torch.device("cpu")

    def train_on_the_cpu(self, *arguments):
        return dataclasses.replace(train(*arguments), device=str(self.given))

runner.Runner = OnTwoGpus
pytest_plugins = ["normbench.plugin"]
"""

# What xdist and pytest make of these tests' ids is not how any case is called.
STRANGE_IDS = """
import pytest

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("again", ["tiny-grid", "größe-batch-none-b64"])
@pytest.mark.cases("größe")
def test_strange(case, run_case, again):
    assert run_case(case).test_accuracy > case.target
"""


@pytest.fixture
def spread(alone: Project) -> Project:
    """Return a project that two workers run."""
    alone.workers = ("-n", "2")
    return alone


def measured(project: Project) -> dict[str, tuple[str, float]]:
    return {run.spec.key: (run.status, run.test_accuracy) for run in project.rows}


def test_any_number_of_workers_leaves_the_same_rows(alone: Project) -> None:
    # equal thread counts, as results are the same to the bit only with those
    torch.set_num_threads(1)
    found = []
    for workers in (["-p", "no:xdist"], ["-n", "0"], ["-n", "3"]):
        alone.workers = tuple(workers)
        alone.run().assert_outcomes(passed=4)
        found.append(measured(alone))
        assert list(alone.verdicts.values()) == ["passed"] * 4
    assert len(found[0]) == 4
    assert found[1:] == found[:1] * 2


def test_workers_share_the_cores_and_sign_their_rows(
    spread: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    spread.run().assert_outcomes(passed=4)
    assert {run.worker for run in spread.rows} <= {"gw0", "gw1"}
    assert {run.threads for run in spread.rows} == {3}


# No need to wait as long for signs of life as on a machine that does other work. One worker dies
# before it has begun to train.
CONFTEST = """
import os
import signal

import pytest

from normbench.engine import watchdog

@pytest.fixture(autouse=True)
def early_end(request):
    if "Early" in request.node.name:
        os.kill(os.getpid(), signal.SIGKILL)

watchdog.GRACE_SECONDS, watchdog.BEAT_SECONDS = 1.0, 1.0
pytest_plugins = ["normbench.plugin"]
"""


def test_a_norm_that_does_harm_costs_only_its_own_case(spread: Project) -> None:
    spread.write("harmful.py", HARMFUL)
    # one worker, of which xdist would take the place four times and no more
    spread.workers = ("-n", "1")
    norms = ("Killer", "Early", "Exits", "Aborts", "Hangs", "HoldsTheLock", "Leaks", "Forks")
    added = [f"--bench-norm=harmful:{norm}" for norm in (*norms, "RaisesInBackward")]
    spread.pytester.makeconftest(CONFTEST)
    result = spread.run_apart("-k", "none", "--bench-stall-timeout", "20", *added)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert spread.verdicts == {
        "tiny-batch-none-b64": "passed",
        "tiny-layer-none-b64": "passed",
        "tiny-harmful:Killer-none-b64": "crashed",
        "tiny-harmful:Early-none-b64": "crashed",
        "tiny-harmful:Exits-none-b64": "crashed",
        "tiny-harmful:Aborts-none-b64": "crashed",
        "tiny-harmful:Hangs-none-b64": "stalled",
        "tiny-harmful:HoldsTheLock-none-b64": "stalled",
        # what it has forked leaves no row and no outcome
        "tiny-harmful:Forks-none-b64": "measured",
        # its worker goes with what it has hoarded: the others find the memory that they need
        "tiny-harmful:Leaks-none-b64": "error",
        "tiny-harmful:RaisesInBackward-none-b64": "error",
    }
    assert len(spread.rows) == 11
    leaked = next(run for run in spread.rows if "Leaks" in run.spec.norm)
    assert "DefaultCPUAllocator" in leaked.message
    result.stdout.fnmatch_lines(["*DefaultCPUAllocator*where it was is in*worker 'gw*' crashed*"])
    assert "HOARD.append" in (spread.session / "stalls" / f"{leaked.spec.key}.txt").read_text()
    result.stdout.fnmatch_lines(["harmful:Killer *crashed*"])
    result.stdout.fnmatch_lines(["*its process gave no sign of life for 21 s*crashed*"])
    # the stacks, by Python's faulthandler
    assert "in harm" in result.stderr.str()
    stalled = next(run for run in spread.rows if "Hangs" in run.spec.norm)
    assert "it made no progress for 20 s, after 0 epochs; where it was is in" in stalled.message
    stacks = (spread.session / "stalls" / f"{stalled.spec.key}.txt").read_text()
    assert "in harm" in stacks


def test_workers_are_spread_over_the_gpus(spread: Project) -> None:
    spread.pytester.makeconftest(TWO_GPUS)
    spread.run_apart().assert_outcomes(passed=4)
    by_worker = {(run.worker, run.device) for run in spread.rows}
    assert by_worker == {("gw0", "cuda:0"), ("gw1", "cuda:1")}


def write_strange(project: Project) -> None:
    """Write a grid, and a test of its cases, whose ids are as no case is called."""
    for name in ("cases/tiny.toml", "test_tiny.py"):
        (project.path / "bench" / name).unlink()
    project.write("bench/test_strange.py", STRANGE_IDS)
    project.grid("größe", norms=["batch"])


def test_a_test_whose_id_is_no_cases_is_run_for_its_case(spread: Project) -> None:
    write_strange(spread)
    spread.norm("Größe", "return x")
    result = spread.run_apart("--bench-norm", "own_norms:Größe", "--bench-target", "5")
    result.assert_outcomes(passed=8)
    assert result.ret == pytest.ExitCode.OK
    assert spread.verdicts == {
        f"größe-{norm}-{regularizer}-b64": "passed"
        for norm in ("batch", "own_norms:Größe")
        for regularizer in ("none", "l1:0.001")
    }
    # the second test of a case trained nothing, and the session was prepared before the first
    assert len(spread.rows) == 4
    assert spread.stored.document.environment["torch"]
    assert (spread.session / "tables" / "größe.md").is_file()


DIST = ["loadscope", "loadfile", "loadgroup", "worksteal"]


@pytest.mark.parametrize("dist", DIST)
def test_xdists_other_ways_to_deal_out_tests_leave_a_session(alone: Project, dist: str) -> None:
    write_strange(alone)
    alone.workers = ("-n", "2", "--dist", dist)
    result = alone.run()
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.OK
    assert alone.verdicts == {
        "größe-batch-none-b64": "passed",
        "größe-batch-l1:0.001-b64": "passed",
    }
    # two tests ask for each, in whichever workers: it is trained once
    rows = (alone.session / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    assert (len(rows), [run.status for run in alone.rows]) == (2, ["ok", "ok"])
    assert alone.stored.document.status == "finished"
    assert alone.stored.document.environment["torch"]


@pytest.mark.parametrize("dist", ["load", *DIST])
def test_a_session_that_maxfail_stopped_can_be_resumed(alone: Project, dist: str) -> None:
    alone.grid(norms=["batch", "layer", "instance"], target=99.99)
    alone.workers = ("-n", "2", "--dist", dist)
    result = alone.run("--maxfail=1")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    failed = result.parseoutcomes()["failed"]
    assert 1 <= failed < 6
    assert list(alone.verdicts.values()) == ["failed"] * failed
    assert failed <= len(alone.rows) < 6
    assert {run.status for run in alone.rows} == {"ok"}
    assert alone.stored.document.status == "interrupted"


def test_tests_of_ones_own_that_are_called_as_a_case_or_a_grid_open_no_session(
    spread: Project,
) -> None:
    spread.write(
        "bench/test_other.py",
        'import pytest\n@pytest.mark.parametrize("name", ["tiny", "tiny-grid", '
        '"tiny-batch-none-b64"])\ndef test_other(name): pass\n',
    )
    spread.run("-k", "test_other").assert_outcomes(passed=3)
    assert not spread.results.exists()
