"""Runs at a commit: by the files of its worktree, in a process of their own."""

from pathlib import Path

import pytest

from normbench.engine.processes import run_process
from normbench.engine.revision_runs import Commits, NamedCase, RevisionRuns, traced
from normbench.engine.revisions import Repository
from normbench.spec import RunSpec

from ..repositories import made_repository, without_settings

NORM = """\
from torch import nn


class Scale(nn.Identity):
    def __init__(self, channels):
        super().__init__()
        {}
"""


def test_a_trace_is_of_a_few_batches_and_of_no_more_images_than_there_are() -> None:
    whole = RunSpec("mnist", "mnist", "batch", batch_size=32, epochs=8, recipe="mnist", seed=3)
    assert traced(whole) == RunSpec(
        "mnist", "mnist", "batch", "none", 32, 2, recipe="mnist", seed=3, train_images=8 * 32 + 3
    )
    small = RunSpec("digits", "digits", "batch", batch_size=512, epochs=8, recipe="digits")
    assert traced(small).train_images == 1348


def test_a_run_is_of_the_commits_files_whatever_the_checkout_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    raising = NORM.format("raise ValueError('of the checkout')")
    commits = [{"own/__init__.py": NORM.format("pass")}, {"own/__init__.py": raising}]
    made = made_repository(tmp_path / "repo", commits)
    repository = Repository(made.folder)
    case = NamedCase("digits-own:Scale-none-b64", tmp_path / "data")
    with repository.worktrees() as worktrees:
        place = Commits(case, worktrees, suite=False, process=run_process)
        runs = RevisionRuns(
            case, place, tmp_path / "state", whole=False, device="cpu", process=run_process
        )
        first = repository.commit(made.commits[0])
        (run,) = runs.runs(first, 1)
        command = runs.command(first, 1)[-1]
    assert (run.status, run.device) == ("ok", "cpu")
    assert run.spec == traced(case.spec())
    # and is read from where it is stored
    assert runs.runs(first, 1) == [run]
    assert command.endswith("--bench-seeds 1 --bench-device cpu")
    assert not (made.folder / "own" / "__pycache__").exists()
