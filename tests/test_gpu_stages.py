"""The program that measures on a GPU: a stage that hangs or crashes costs itself alone."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "perf")
    return import_module("gpu_runner")


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


def writes(folder: Path, name: str) -> str:
    """Return the source of a stage that writes its result."""
    result = json.dumps({"told": "seen", "n": 1})
    return f"open({str(folder / name)!r} + '.json', 'w').write({result!r})\n"


def test_each_stage_ends_in_its_own_way(runner: ModuleType, tmp_path: Path) -> None:
    stages = [
        runner.Stage("crashes", python("raise ValueError('no such kernel')"), 20),
        runner.Stage("dies", python(writes(tmp_path, "dies") + "import os; os.abort()"), 20),
        runner.Stage("works", python(writes(tmp_path, "works")), 20),
        runner.Stage("lacks", python("1"), 20, without="there is no such file"),
        runner.Stage("late", python("1"), 20, least=1000),
    ]
    told: list[int] = []
    outcomes = runner.run_stages(stages, tmp_path, 60, lambda ended: told.append(len(ended)))
    assert told == [1, 2, 3, 4, 5]
    assert [(o.name, o.status, o.result.get("n")) for o in outcomes] == [
        ("crashes", "failed", None),
        ("dies", "failed", 1),
        ("works", "ok", 1),
        ("lacks", "left out", None),
        ("late", "left out", None),
    ]
    assert outcomes[0].message.startswith("exit status 1; its log ends:\nTraceback")
    assert outcomes[0].message.endswith("ValueError: no such kernel")
    assert outcomes[1].message.startswith("exit status -6")
    assert outcomes[2].line().endswith(" s: seen")
    assert outcomes[3].message == "there is no such file"
    assert outcomes[4].message.endswith("s are left, and it takes at least 1000 s")
    assert "no such kernel" in (tmp_path / "crashes.log").read_text()


HANGING = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
{result}
time.sleep(600)
"""


def test_a_stage_that_hangs_is_ended_with_what_it_started(
    runner: ModuleType, tmp_path: Path
) -> None:
    source = HANGING.format(result=writes(tmp_path, "hangs"))
    stages = [
        runner.Stage("hangs", python(source), 3),
        runner.Stage("works", python(writes(tmp_path, "works")), 20),
    ]
    outcomes = runner.run_stages(stages, tmp_path, 60)
    assert [(o.status, o.result.get("n")) for o in outcomes] == [("timed out", 1), ("ok", 1)]
    assert 3 <= outcomes[0].seconds < 3 + runner.GRACE_SECONDS
    child = int((tmp_path / "hangs.log").read_text())
    assert not running(child)


def running(process: int) -> bool:
    """Whether a process is there, and no zombie, which waits for nobody."""
    file = Path(f"/proc/{process}/stat")
    return file.exists() and file.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_stage_that_does_not_listen_is_ended_by_force(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    start = time.monotonic()
    outcomes = runner.run_stages([runner.Stage("deaf", python(deaf), 2)], tmp_path, 60)
    assert [o.status for o in outcomes] == ["timed out"]
    assert time.monotonic() - start < 10


def test_stages_get_what_is_left_of_the_time_and_know_how_much(
    runner: ModuleType, tmp_path: Path
) -> None:
    source = "import sys, time; print(sys.argv[1], flush=True); time.sleep(600)"
    stages = [
        runner.Stage("first", [*python(source), "{seconds}"], 2),
        runner.Stage("second", [*python(source), "{seconds}"], 600, least=1),
        runner.Stage("third", python("1"), 600, least=1),
    ]
    start = time.monotonic()
    outcomes = runner.run_stages(stages, tmp_path, 10)
    assert time.monotonic() - start < 10
    assert [o.status for o in outcomes] == ["timed out", "timed out", "left out"]
    assert (tmp_path / "first.log").read_text().strip() == "2.0"
    assert 2 < float((tmp_path / "second.log").read_text()) <= 4


def test_a_result_of_an_earlier_run_is_not_taken_for_this_one_s(
    runner: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "crashes.json").write_text('{"n": 7}')
    outcomes = runner.run_stages([runner.Stage("crashes", python("1/0"), 20)], tmp_path, 60)
    assert outcomes[0].result == {}


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "perf" / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def ended(folder: Path) -> Sequence[tuple[str, str]]:
    document = json.loads((folder / "gpu.json").read_text())
    return [(stage["name"], stage["status"]) for stage in document["stages"]]


def test_the_program_writes_its_tables_where_there_is_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    output = tmp_path / "measured"
    done = program(
        *("--device", "cpu", "--quick", "--data", str(tmp_path), "--output", str(output)),
        *("--limit", "90", "--only", "facts", "profile"),
    )
    assert done.returncode == 0, done.stderr
    # there is no MNIST in the data root: a step of it cannot be profiled
    assert ended(output) == [("facts", "ok"), ("profile", "failed")]
    page = (output / "speed-gpu.md").read_text()
    assert page.startswith("# Speed on a GPU\n\nMachine: no GPU")
    assert "DatasetUnavailable: MNIST is not in" in page
    assert (output / "stages.tar.gz").stat().st_size > 0
    assert (output / "stages" / "facts.log").exists()


def test_the_program_refuses_a_data_root_without_mnist(tmp_path: Path) -> None:
    done = program("--data", str(tmp_path))
    assert done.returncode == 2
    assert "MNIST/raw is not there: name the data root with --data" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a CUDA device")
def test_the_program_says_what_the_machine_is_where_torch_sees_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    output = tmp_path / "measured"
    done = program("--data", str(tmp_path), "--output", str(output), "--only", "facts")
    assert done.returncode == 0, done.stderr
    (facts,) = json.loads((output / "gpu.json").read_text())["stages"]
    assert facts["status"] == "failed"
    assert facts["result"]["packages"]["torch"]
    assert facts["result"]["told"].startswith("no GPU, ")
