"""--bench-plant: code that is broken on purpose, called so wherever it shows, and put right."""

import json
from pathlib import Path

import pytest
import torch

from normbench.commands.main import main
from normbench.models.families import FAMILIES
from normbench.storage.history import open_history

from ..conftest import Project

# Batch normalization learns nothing with it; layer normalization, which is group normalization in
# torch, does as before.
FAULT = "batch-square-for-root"

CONFORMANCE = """
import pytest

@pytest.mark.conformance()
def test_norm(norm, check):
    assert not check("norm", norm).broken
"""


def losses(project: Project) -> dict[str, tuple[str, float]]:
    """Return what was planted in each run and its training loss, by case."""
    return {run.spec.label: (run.planted, run.train_loss) for run in project.rows}


def test_it_is_planted_wherever_tests_run_and_in_this_session_alone(project: Project) -> None:
    # equal thread counts, as results are the same to the bit only with those
    torch.set_num_threads(1)
    original = torch.nn.functional.batch_norm
    project.run().assert_outcomes(passed=4)
    sound = losses(project)
    assert {planted for planted, _ in sound.values()} == {""}
    assert project.stored.planted == ""
    project.run("--bench-plant", FAULT)
    assert torch.nn.functional.batch_norm is original
    broken = losses(project)
    assert {planted for planted, _ in broken.values()} == {FAULT}
    for case, (_, loss) in sound.items():
        assert (broken[case][1] == loss) is ("batch" not in case)
    document = project.stored.document
    assert (document.planted, document.options["plant"]) == (FAULT, FAULT)
    project.run().assert_outcomes(passed=4)
    assert losses(project) == sound


def test_terminal_report_and_summary_say_so(alone: Project) -> None:
    result = alone.run("--bench-plant", FAULT)
    result.stdout.fnmatch_lines(
        [
            f"normbench: the fault {FAULT} is planted: Batch normalization divides by the square*",
            f"normbench: the fault {FAULT} was planted: this session tells of no sound code",
        ]
    )
    folder = alone.session
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert summary.splitlines()[2].startswith(f"**The fault {FAULT} was planted**")
    page = (folder / "report.html").read_text(encoding="utf-8")
    before, _, _ = page.partition('<ul class="counts">')
    assert f'<p class="planted">The fault {FAULT} was planted:' in before
    (table,) = (folder / "tables").glob("tiny.md")
    assert f"With the fault {FAULT} planted." in table.read_text(encoding="utf-8")


def test_without_it_nothing_is_said(alone: Project) -> None:
    result = alone.run("-k", "layer-none")
    result.stdout.no_fnmatch_line("*planted*")
    for name in ("summary.md", "report.html", "tables/tiny.md"):
        text = (alone.session / name).read_text(encoding="utf-8")
        # a page's style has it
        assert "planted" not in text.rpartition("</style>")[2]


def test_what_a_check_finds_carries_its_name(alone: Project) -> None:
    alone.write("bench/test_norms.py", CONFORMANCE)
    one = ("-k", "test_norm and batch and not renorm", "-p", "no:cacheprovider")
    result = alone.run("--bench-plant", FAULT, *one)
    result.assert_outcomes(failed=1, deselected=len(FAMILIES) - 1 + 4)
    (checked,) = alone.stored.checks
    assert checked.planted == FAULT
    assert checked.broken


def test_a_run_that_raises_carries_its_name(alone: Project) -> None:
    alone.norm("Ours", "if len(x) > 2:\n    raise RuntimeError('of its own')\nreturn x")
    alone.grid(norms=["own_norms:Ours"])
    alone.run("--bench-plant", FAULT).assert_outcomes(failed=2)
    assert [(run.status, run.planted) for run in alone.rows] == [("error", FAULT)] * 2


def test_a_run_that_a_worker_dies_with_carries_its_name(alone: Project) -> None:
    alone.workers = ("-n", "1")
    alone.norm(
        "Ours",
        "if len(x) > 2 and self.training:\n    import os\n    os.kill(os.getpid(), 9)\nreturn x",
    )
    alone.grid(norms=["own_norms:Ours"])
    alone.run_apart("--bench-plant", FAULT, "-k", "none-b64")
    assert [(run.status, run.planted) for run in alone.rows] == [("crashed", FAULT)]


def test_an_unknown_fault_is_refused_with_the_closest_names(alone: Project) -> None:
    result = alone.run("--bench-plant", "batch-square-root")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"*argument --bench-plant: unknown fault 'batch-square-root': expected *{FAULT}*"]
    )
    assert not alone.results.exists()


def test_no_baseline_is_saved_of_it(alone: Project) -> None:
    result = alone.run("--bench-plant", FAULT, "--bench-save-baseline", "mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"*--bench-save-baseline: with --bench-plant {FAULT} the runs are of broken code, and "
            "no baseline; expected one of the two options alone: leave the other one out"
        ]
    )
    assert not alone.results.exists()


def test_it_resumes_no_session(alone: Project) -> None:
    alone.grid(target=99.9)
    alone.run("-x").assert_outcomes(failed=1)
    rows = alone.rows
    result = alone.run("--bench-plant", FAULT, "--bench-resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--bench-resume: with --bench-plant {FAULT} the runs are of*"])
    assert alone.rows == rows


def test_its_session_is_not_resumed(alone: Project) -> None:
    alone.grid(target=99.9)
    result = alone.run("--bench-plant", FAULT, "-x")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["normbench: interrupted, 3 of 4 cases are left"])
    rows = alone.rows
    again = alone.run("--bench-resume")
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(
        [
            f"*--bench-resume: the last session, *, had the fault '{FAULT}' planted, and its runs "
            "are of broken code; expected a session without --bench-plant: run without *"
        ]
    )
    assert alone.rows == rows


@pytest.fixture
def broken(alone: Project) -> Path:
    """Return a session of one case, of five seeds, with a planted fault; its baseline is ``mine``.

    The baseline is of the same case with sound code.
    """
    seeds = ("-k", "batch-none", "--bench-seeds", "5")
    alone.run(*seeds, "--bench-save-baseline", "mine").assert_outcomes(passed=1, deselected=3)
    alone.grid(target=0.1)
    alone.run(*seeds, "--bench-plant", FAULT)
    return alone.session


REFUSED = f"is no baseline: the fault '{FAULT}' was planted while it ran; expected a session"


def test_its_session_is_compared_with_no_other_as_a_baseline(alone: Project, broken: Path) -> None:
    result = alone.run("--bench-baseline", str(broken))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{REFUSED} without --bench-plant: run it again without*"])


def test_commands_refuse_it_as_a_baseline_and_compare_it(
    alone: Project, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ("--results", str(alone.results))
    capsys.readouterr()
    assert main(["baseline", "other", str(broken), *results]) == 2
    assert REFUSED in capsys.readouterr().err
    assert main(["compare", str(broken), "mine", *results]) == 2
    assert REFUSED in capsys.readouterr().err
    assert main(["compare", "mine", str(broken), *results]) == 1
    out = capsys.readouterr().out
    assert "1 regression" in out
    assert f"the fault {FAULT} was planted in {broken.name}" in out
    assert main(["compare", "mine", str(broken), "--json", *results]) == 1
    assert json.loads(capsys.readouterr().out)["planted"] == FAULT


def test_beside_a_baseline_its_session_fails(alone: Project, broken: Path) -> None:
    result = alone.run("-k", "batch-none", "--bench-baseline", "mine", "--bench-plant", FAULT)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["normbench: no pass, 1 case worse than in mine: digits batch-*"])


def test_it_stands_in_no_history(alone: Project) -> None:
    one = ("-k", "layer-none")
    alone.run(*one)
    alone.run(*one, "--bench-plant", FAULT)
    assert (
        '"history":{"sessions":[],"cases":[]}' in (alone.stored.folder / "report.html").read_text()
    )
    alone.run(*one)
    with open_history(alone.stored.folder.parent) as history:
        (case,) = history.cases(history.sessions())
    assert len(case.points) == 2
