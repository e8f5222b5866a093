"""Live progress: what it says, what it leaves of pytest's own lines, on terminals and in logs."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyte
import pytest

from normbench.cases.case import Case
from normbench.plugin.progress import SessionProgress, SharedTerminal, Snapshot, board, clock, line
from normbench.results import Epoch, RunResult
from normbench.spec import RunSpec
from normbench.storage.runs import RunningRun, RunStore

from ..conftest import TEST_MODULE, Project

SPEC = RunSpec("digits", "digits", "batch", recipe="digits", epochs=4)
EPOCH = Epoch(2, 0.1, 0.25, 0.97, 0.3, 0.9876, 0.5, 0.1)
RUNNING = RunningRun("gw0", "cpu", "digits-batch-none-b64", SPEC, (EPOCH, EPOCH))


def snapshot(**changes: Any) -> Snapshot:
    usual: dict[str, Any] = {
        "done": 3,
        "cases": 12,
        "share": 0.25,
        "share_before": 0.0,
        "elapsed_seconds": 60.0,
    }
    return Snapshot(**{**usual, "failed": (), "running": (RUNNING,), **changes})


def screen_of(text: str, columns: int = 120) -> list[str]:
    screen = pyte.Screen(columns, 40)
    pyte.Stream(screen).feed(text.replace("\n", "\r\n"))
    return [row.rstrip() for row in screen.display]


def test_durations_read_as_clocks() -> None:
    assert (clock(0), clock(59.6), clock(3_725)) == ("0:00", "1:00", "1:02:05")


def test_the_time_left_follows_from_what_is_done() -> None:
    assert snapshot().seconds_left == pytest.approx(180)
    assert snapshot(share=0.0).seconds_left is None
    # a session that was gone on with has done 0.05 in this minute
    assert snapshot(share_before=0.2).seconds_left == pytest.approx(900)
    assert snapshot(share_before=0.25).seconds_left is None


def test_a_line_says_what_runs_and_how_far_it_is() -> None:
    assert line(snapshot(failed=("digits-layer-none-b64",))) == (
        "normbench: 3 of 12 cases, 1 failed, 1:00 so far, 3:00 left: gw0 cpu "
        "digits-batch-none-b64 seed 0 epoch 2/4 loss 0.2500 98.76 % 2,696 images/s"
    )


def test_a_board_has_a_line_a_running_case_the_bar_and_what_failed() -> None:
    started = RunningRun("gw1", "cpu", "", SPEC.with_seed(2), ())
    failed = tuple(f"case{number}" for number in range(5))
    rows = screen_of(board(snapshot(running=(RUNNING, started), failed=failed), 120))
    assert "gw0 cpu digits-batch-none-b64 seed 0 epoch 2/4" in rows[0]
    assert "98.76 %" in rows[0]
    assert "gw1 cpu batch-none-b64 seed 2        epoch 0/4" in rows[1]
    assert "3 of 12 cases, 5 failed, 1:00 so far, 3:00 left" in rows[2]
    assert rows[3] == "failed: case2, case3, case4 and 2 before"


def test_a_board_keeps_to_the_terminals_width() -> None:
    for width in (60, 80):
        drawn = screen_of(board(snapshot(failed=("x" * 90,)), width), columns=200)
        assert len([row for row in drawn if row]) == 3
        assert max(map(len, drawn)) <= width


def test_a_board_leaves_pytests_lines_as_they_were() -> None:
    file = io.StringIO()
    terminal = SharedTerminal(file)
    terminal.write("collected 3 items\n\nbench/test_x.py ")
    terminal.show("board\nsecond line")
    terminal.write("\x1b[32m.\x1b[0m")
    terminal.show("board\nsecond line\nthird line")
    assert screen_of(file.getvalue())[2:6] == [
        "bench/test_x.py .",
        "board",
        "second line",
        "third line",
    ]
    terminal.show("shorter")
    terminal.write("F")
    terminal.write_line("a line of our own")
    terminal.show("board")
    terminal.clear()
    terminal.write("== 3 passed ==\n")
    assert [row for row in screen_of(file.getvalue()) if row] == [
        "collected 3 items",
        "bench/test_x.py .F",
        "a line of our own",
        "== 3 passed ==",
    ]


def test_a_sessions_share_counts_finished_runs_and_epochs(tmp_path: Path) -> None:
    cases = [Case("digits", "smoke", SPEC, 0.9, seeds=2)]
    cases.append(Case("digits", "smoke", RunSpec(**{**SPEC.to_dict(), "norm": "layer"}), 0.9))
    store = RunStore(tmp_path)
    progress = SessionProgress(store, cases)
    assert progress.snapshot({}).share == 0.0
    assert progress.snapshot({}).share_before == 0.0
    store.append(RunResult(SPEC, "ok", epochs=(EPOCH,) * 4))
    with store.exclusive(SPEC.with_seed(1)), store.lease(SPEC.with_seed(1), "c"):
        store.note_epoch(EPOCH)
        store.note_epoch(EPOCH)
        now = progress.snapshot({})
        assert now.share == pytest.approx((1 + 0.5) / 3)
        assert [(run.worker, run.case) for run in now.running] == [("main", "c")]
    store.append(RunResult(SPEC.with_seed(1), "ok", epochs=(EPOCH,) * 4))
    over = progress.snapshot({"digits-batch-none-b64": "failed"})
    assert (over.done, over.failed) == (1, ("digits-batch-none-b64",))
    assert over.share == pytest.approx(2 / 3)
    assert over.running == ()
    resumed = SessionProgress(store, cases).snapshot({})
    assert resumed.share_before == resumed.share == pytest.approx(2 / 3)


def on_a_terminal(project: Project, *arguments: str, typed: str = "") -> str:
    """Run pytest on a pseudo-terminal of 140 columns; return all that it wrote."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "60"}
    command = [sys.executable, "-m", "pytest", *project.workers, "bench", *arguments]
    process = subprocess.Popen(
        command,
        cwd=project.path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    assert process.stdin is not None
    process.stdin.write(typed.encode())
    process.stdin.close()
    chunks = []
    while True:
        try:
            chunk = os.read(controller, 65536)
        except OSError:  # Linux says so when the other side has closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    process.wait()
    os.close(controller)
    return b"".join(chunks).decode()


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "2"]])
def test_a_terminal_shows_the_board_and_ends_with_pytests_lines_alone(
    alone: Project, workers: list[str]
) -> None:
    alone.workers = tuple(workers)
    alone.grid(norms=["batch"], epochs=12)
    shown_and_failed = "    print('told by the test')\n    assert case.spec.regularizer == 'none'\n"
    alone.write("bench/test_tiny.py", TEST_MODULE + shown_and_failed)
    written = on_a_terminal(alone, "--bench-seeds", "3")
    assert "of 2 cases" in written
    assert "epoch " in written
    screen = pyte.HistoryScreen(140, 60, history=1000)
    pyte.Stream(screen).feed(written)
    top = ["".join(c.data for _, c in sorted(row.items())) for row in screen.history.top]
    shown = "\n".join([*top, *screen.display])
    assert "of 2 cases" not in shown
    assert "told by the test" in shown
    assert "1 failed, 1 passed" in shown
    assert "normbench: tiny" in shown


def test_a_debugger_has_the_terminal_to_itself(alone: Project) -> None:
    alone.grid(norms=["batch"])
    alone.write("bench/test_tiny.py", TEST_MODULE + "    breakpoint()\n")
    # longer than the board waits before it is drawn again
    commands = "import time; time.sleep(2.5)\np 6 * 7\nc\n"
    written = on_a_terminal(alone, "-k", "none", typed=commands)
    _, debugger, after = written.partition("(Pdb) ")
    assert debugger
    inside, continued, _ = after.partition("PDB continue")
    assert continued
    assert inside.splitlines()[0].endswith("42")
    assert "of 1 cases" not in inside


def test_a_log_gets_plain_lines_and_verbose_adds_epochs(alone: Project) -> None:
    alone.grid(norms=["batch"], epochs=12)
    alone.pytester.makeconftest(
        "import normbench.plugin.progress\n"
        "normbench.plugin.progress.BOARD_INTERVAL = normbench.plugin.progress.LINE_INTERVAL = 0.2\n"
        'pytest_plugins = ["normbench.plugin"]\n'
    )
    result = alone.run_apart("-v", "--bench-seeds", "2")
    result.assert_outcomes(passed=2)
    told = [text for text in result.outlines if text.startswith("normbench: 0 of 2 cases, ")]
    assert told
    epochs = [text for text in result.outlines if text.startswith("digits batch-")]
    assert len(epochs) == 2 * 2 * 12
    assert "digits batch-none-b64, seed 1 epoch 12/12, loss" in "\n".join(epochs)
    # a case that has passed has no more to tell
    first = next(n for n, text in enumerate(result.outlines) if "PASSED" in text)
    passed = [text.partition(",")[0] for text in result.outlines[:first] if text in epochs]
    assert len(passed) == 2 * 12
    assert len(set(passed)) == 1
    assert not [text for text in result.outlines[first:] if text.startswith(f"{passed[0]},")]
    assert "\x1b" not in result.stdout.str()
    quiet = alone.run("-q")
    assert not [text for text in quiet.outlines if "of 2 cases" in text]
