"""--bench-engine ray: a cluster trains, of which a node may die, and rows are those of xdist."""

import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from normbench.plugin import options

from ..conftest import Project

NEEDS_RAY = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'normbench[ray]'"
)

HARMFUL = """
import os, signal
from torch import nn

class Harmful(nn.Identity):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        if len(x) > 2:
            self.harm()
        return x

class Killer(Harmful):
    def harm(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Raises(Harmful):
    def harm(self):
        raise RuntimeError("no such thing")

class Hangs(Harmful):
    def harm(self):
        while True:
            pass
"""


# Three nodes of one core each, of which one is killed at the first line that comes in.
NODES = """
import socket
from ray.cluster_utils import Cluster

with socket.socket() as free:
    free.bind(("", 0))
    port = free.getsockname()[1]
head = {"num_cpus": 1, "include_dashboard": False, "gcs_server_port": port}
cluster = Cluster(initialize_head=True, head_node_args=head)
last = [cluster.add_node(num_cpus=1) for _ in range(2)][-1]
print(cluster.address, flush=True)
if input() == "kill":
    cluster.remove_node(last, allow_graceful=False)
    print("killed", flush=True)
    input()
cluster.shutdown()
"""


class Nodes:
    """A cluster on this machine, in a process of its own: Ray cannot be imported twice in one."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.address = self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill_one(self) -> None:
        self.tell("kill")
        assert self._answer() == "killed"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Return a cluster of three nodes on this machine, of one core each."""
    process = subprocess.Popen(
        [sys.executable, "-c", NODES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        nodes = Nodes(process)
        yield nodes
        nodes.tell("end")


def joining(nodes: Nodes) -> tuple[str, ...]:
    return ("--bench-engine", "ray", "--bench-ray-address", nodes.address)


@NEEDS_RAY
def test_a_node_that_dies_costs_no_run_and_rows_are_equal_to_xdists(
    alone: Project, nodes: Nodes
) -> None:
    alone.grid(norms=["batch", "layer", "instance"], epochs=12)
    alone.workers = ("-n", "2")
    alone.run_apart().assert_outcomes(passed=6)
    expected = {run.spec.key: run.decided for run in alone.rows}
    alone.workers = ("-p", "no:xdist")
    process = alone.begin(*joining(nodes))
    # in the midst of the first runs, of which each node has one
    deadline = time.monotonic() + 120
    while len(alone.running) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert all(run.case.startswith("tiny-") for run in alone.running)
    nodes.kill_one()
    assert process.wait(240) == pytest.ExitCode.OK
    rows = alone.rows
    assert len(rows) == len((alone.session / "runs.jsonl").read_text().splitlines()) == 6
    assert {run.spec.key: run.decided for run in rows} == expected
    assert alone.stored.document.workers == 3
    assert alone.stored.document.status == "finished"
    assert alone.running == []


@NEEDS_RAY
def test_what_does_harm_costs_only_its_own_case(alone: Project, nodes: Nodes) -> None:
    alone.write("harmful.py", HARMFUL)
    added = [f"--bench-norm=harmful:{name}" for name in ("Killer", "Raises", "Hangs")]
    result = alone.run_apart(
        "-k", "none and not layer", "--bench-stall-timeout", "10", *added, *joining(nodes)
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert alone.verdicts == {
        "tiny-batch-none-b64": "passed",
        "tiny-harmful:Killer-none-b64": "crashed",
        "tiny-harmful:Raises-none-b64": "error",
        "tiny-harmful:Hangs-none-b64": "stalled",
    }
    told = {run.spec.norm: run.message for run in alone.rows}
    assert "died that trained this run, 3 times" in told["harmful:Killer"]
    assert told["harmful:Raises"] == "RuntimeError: no such thing"


@NEEDS_RAY
def test_an_interrupted_session_goes_on_with_what_is_left(alone: Project) -> None:
    ray = ("--bench-engine", "ray", "--bench-ray-address", "local")
    alone.grid(target=99.99)
    stopped = alone.run_apart("-x", *ray)
    stopped.assert_outcomes(failed=1)
    before = {run.spec.key: run.ended for run in alone.rows}
    resumed = alone.run_apart("--bench-resume", *ray)
    resumed.assert_outcomes(failed=4)
    after = {run.spec.key: run.ended for run in alone.rows}
    assert len(after) == 4
    assert before.items() <= after.items()


@NEEDS_RAY
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--bench-ray-address", "127.0.0.1:1"], "*cannot join the cluster*"),
        (
            ["--bench-ray-address", "local", "--bench-ray-gpus", "1"],
            "*no node of Ray's cluster can take a run*",
        ),
    ],
)
def test_a_cluster_that_cannot_train_ends_the_session_before_it_begins(
    alone: Project, arguments: list[str], told: str
) -> None:
    result = alone.run_apart("--bench-engine", "ray", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])
    assert not alone.results.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-n", "2"], "*Ray deals out the runs, and not xdist*"),
        (["--bench-device", "cpu"], "*expected no --bench-device*"),
        (["--bench-replay", "same"], "*rows are taken by traces*"),
        (["--bench-plant", "weight-decay-none"], "*faults are planted in this process*"),
        (["--bench-ray-address", "ray"], "*expected auto*or HOST:PORT*"),
        (["--bench-ray-cpus", "0"], "*expected a number of cores*"),
        (["--bench-ray-gpus", "2"], "*expected a part of a GPU*"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    alone: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: name)
    alone.workers = ()
    result = alone.run("--bench-engine", "ray", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])


def test_its_options_need_it_and_it_needs_ray(
    alone: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.run("--bench-ray-cpus", "2").stderr.fnmatch_lines(["*needs --bench-engine ray*"])
    alone.run("--bench-engine", "slurm").stderr.fnmatch_lines(["*expected xdist or ray*"])
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    alone.run("--bench-engine", "ray").stderr.fnmatch_lines(["*pip install 'normbench[[]ray]'*"])
