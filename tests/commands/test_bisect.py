"""``normbench bisect``: made histories are searched, with what stands in for the suite's processes.

One search trains, in this process.
"""

import argparse
import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normbench.commands import bisect
from normbench.commands.main import main
from normbench.commands.run import pytest_arguments
from normbench.engine.bisection import CannotAsk
from normbench.engine.processes import Ended, RunProcess, run_process
from normbench.engine.revisions import GitError
from normbench.results import RunResult
from normbench.spec import RunSpec
from normbench.storage.runs import RunStore

from ..repositories import Files, made_repository, without_settings
from ..storage.stored import finished

CASE = "digits-mypkg.norms:Scale-none-b64"
COMMITS = 64


@pytest.fixture(autouse=True)
def settings_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_settings(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path / "data"))


class Suite:
    """Stands in for the processes: a run comes to what the norm's file says at the commit.

    Its first line is a word, or a number that the accuracy of a run is about; ``noise`` is the
    deviation of accuracies over seeds. ``stops_after`` is how many runs end before Ctrl-C.
    """

    def __init__(self, noise: float = 0.0, stops_after: int = 1000, unsteady: bool = False) -> None:
        self.noise, self.stops_after, self.unsteady = noise, stops_after, unsteady
        self.started: list[tuple[Sequence[str], Path, Mapping[str, str]]] = []
        self.specs: list[RunSpec] = []
        self.trained: list[tuple[str, int]] = []

    def __call__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> Ended:
        if "-c" in command:
            package = folder / str(command[-1]) / "__init__.py"
            return Ended(0, f"{package if package.exists() else None}\n")
        if len(self.started) == self.stops_after:
            raise KeyboardInterrupt
        self.started.append((command, folder, environment))
        given = {name: command[command.index(name) + 1] for name in command if "--bench" in name}
        spec = spec_of(Path(given["--bench-cases"]))
        first, _, last = given["--bench-seeds"].rpartition(":")
        store = RunStore(Path(given["--bench-results"]) / "runs" / "now")
        for seed in range(int(first or 0), int(last)):
            self.specs.append(spec.with_seed(seed))
            self.trained.append((folder.name, seed))
            run = self.run(spec.with_seed(seed), self.read(folder))
            if run is None:
                return Ended(1, "E   SyntaxError: invalid syntax\n")
            store.append(run)
        return Ended(0, "1 passed\n")

    def read(self, folder: Path, /) -> str:
        return (folder / "mypkg" / "norms.py").read_text(encoding="utf-8").strip()

    def run(self, spec: RunSpec, says: str) -> RunResult | None:
        if says == "broken":
            return None
        if says == "raises":
            return RunResult(spec, "error", "ZeroDivisionError: division by zero")
        if says == "diverges":
            return RunResult(spec, "diverged", "the loss is nan")
        value = float(says)
        if self.noise:
            rng = np.random.default_rng([spec.seed, int(1e6 * value), 1])
            value += self.noise * float(rng.standard_normal())
        if self.unsteady:
            value += 1e-6 * len(self.started)
        return finished(spec, min(1.0, value))


def spec_of(file: Path) -> RunSpec:
    """Return the spec of a cases file of one case, without importing its norm."""
    told: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    (grid,) = told["grid"]
    (norm,), (strengths,), (size,) = grid["norm"], grid["regularizer"], grid["batch_size"]
    fields = {field.name for field in dataclasses.fields(RunSpec)} & set(told)
    kept = {name: told[name] for name in fields}
    return RunSpec(norm=norm, batch_size=size, **{**kept, **strengths})


def norm_of(says: object) -> Files:
    return {"mypkg/norms.py": f"{says}\n", "mypkg/__init__.py": ""}


def history(*says: object) -> list[Files]:
    """Return a history of commits, in each of which the norm says the next of these."""
    return [norm_of(each) for each in says]


def planted(change: int, before: object = 0.9, after: object = 0.8) -> list[Files]:
    """Return 64 commits of a norm, one of which changes what it says; they count from 0."""
    norms = {0: norm_of(before), change: norm_of(after)}
    return [{"notes": str(n), **norms.get(n, {})} for n in range(COMMITS)]


def ran(suite: RunProcess, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    bisect.add_arguments(parser)
    return bisect.main(parser.parse_args([CASE, "--repo", "repo", *arguments]), suite)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.parametrize("change", [1, 32, 45, 63])
def test_of_64_commits_the_one_that_changed_a_trace_is_found_in_7_steps(
    change: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", planted(change))
    suite = Suite()
    assert ran(suite, "--good", made.commits[0], "--json") == 0
    found = document(capsys)
    assert found["found"]["name"] == made.commits[change]
    assert found["steps"] <= 6
    # the two ends beside them
    assert len(suite.started) == found["steps"] + 2
    # a few batches over two epochs
    assert {(spec.epochs, spec.train_images) for spec in suite.specs} == {(2, 8 * 64 + 3)}


def test_the_commit_is_told_with_the_evidence_and_how_to_see_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", history(0.9, 0.9, 0.8, 0.8))
    (made.folder / "mypkg" / "norms.py").write_text("0.7\n", encoding="utf-8")
    assert ran(Suite(), "--good", made.commits[0], "--bad", "main") == 0
    before, after = made.commits[1], made.commits[2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"3 commits of {made.folder}; what is not committed takes no part"
    found = lines.index(f"{after[:12]} changed {CASE}")
    assert lines[found + 1 : found + 7] == [
        "  2026-01-03T00:00:00+00:00  Jane Doe: Commit 3",
        "  mypkg/norms.py | 2 +-",
        "  1 file changed, 1 insertion(+), 1 deletion(-)",
        "before: test_accuracy of epoch 1 = 0.9",
        # of the spec 9 figures, the status, the parameters, and 5 of an epoch
        "after:  test_accuracy of epoch 1 = 0.8; 1 of 15 figures differ",
        lines[found + 6],
    ]
    assert lines[found + 6].startswith("2 steps between the ends, ")
    repeat = f"normbench bisect {CASE} --good {before[:12]} --bad {after[:12]} --repo repo"
    assert lines[found + 7] == f"to repeat it: {repeat}"
    add, folder, run = lines[found + 9 : found + 12]
    assert add.endswith(f"worktree add --detach /tmp/{before[:12]} {before}")
    assert folder == f"  cd /tmp/{before[:12]}"
    start = "  PYTHONPATH=. python -m normbench run --bench-cases "
    assert run.startswith(start)
    file = Path(run.removeprefix(start).split()[0])
    assert spec_of(file) == RunSpec(
        "digits", "digits", "mypkg.norms:Scale", epochs=2, recipe="digits", train_images=515
    )


def test_the_worktree_is_what_a_norm_is_imported_from(tmp_path: Path) -> None:
    nested = [{f"src/{path}": text for path, text in files.items()} for files in history(0.9, 0.8)]
    made = made_repository(tmp_path / "repo", nested)
    suite = Suite()
    # from the same folder of the worktree as that of the checkout
    assert ran(suite, "--good", made.commits[0], "--repo", "repo/src") == 0
    for command, folder, environment in suite.started:
        assert list(command[1:4]) == ["-m", "normbench", "run"]
        assert folder.parts[-2:-1] in {(commit[:12],) for commit in made.commits}
        assert folder.name == "src"
        assert environment["PYTHONPATH"].split(":")[0] == str(folder)
        assert environment["NORMBENCH_DATA"] == str(tmp_path / "data")


def test_a_norm_that_is_imported_from_elsewhere_is_refused(tmp_path: Path) -> None:
    nested = [{f"src/{path}": text for path, text in files.items()} for files in history(0.9, 0.8)]
    made = made_repository(tmp_path / "repo", nested)

    def installed(command: Sequence[str], *_: object) -> Ended:
        assert "-c" in command
        return Ended(0, f"a warning\n{made.folder}/src/mypkg/__init__.py\n")

    with pytest.raises(
        CannotAsk, match=r"mypkg is imported from .*/repo/src/mypkg/__init__.py, an"
    ):
        ran(installed, "--good", made.commits[0])


def test_nothing_is_trained_twice_and_what_was_stopped_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", planted(45))
    stopped = Suite(stops_after=4)
    assert ran(stopped, "--good", made.commits[0]) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    assert not list(tmp_path.glob("normbench-bisect-*"))
    assert len(made.git("worktree", "list").splitlines()) == 1
    rest = Suite()
    assert ran(rest, "--good", made.commits[0], "--json") == 0
    assert document(capsys)["found"]["name"] == made.commits[45]
    assert len(stopped.started) + len(rest.started) == 2 + 6
    again = Suite()
    assert ran(again, "--good", made.commits[0]) == 0
    assert again.started == []


def test_commits_that_cannot_be_run_are_passed_over_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = [0.9, 0.9, "broken", "raises", 0.8, 0.8, "broken", 0.8]
    made = made_repository(tmp_path / "repo", history(*says))
    assert ran(Suite(), "--good", made.commits[0], "--json") == 1
    found = document(capsys)
    assert found["found"] is None
    assert [each["name"] for each in found["candidates"]] == made.commits[2:5]
    assert [each["reason"] for each in found["skipped"]] == [
        "no row of seed 0: E   SyntaxError: invalid syntax",
        "the run ended as error: ZeroDivisionError: division by zero",
    ]
    assert ran(Suite(), "--good", made.commits[0]) == 1
    assert f"one of these 3 changed {CASE}:" in capsys.readouterr().out


@pytest.mark.parametrize("says", ["raises", "diverges"])
def test_a_bad_end_may_be_one_that_fails(
    says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", history(0.9, 0.9, 0.9, says, says))
    assert ran(Suite(), "--good", made.commits[0], "--json") == 0
    found = document(capsys)
    assert found["found"]["name"] == made.commits[3]
    assert found["difference"]["figure"] == "status"


def test_a_third_trace_is_a_change_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", history(0.9, 0.9, 0.85, 0.85, 0.85, 0.8, 0.8))
    suite = Suite()
    assert ran(suite, "--good", made.commits[0], "--json") == 0
    found = document(capsys)
    assert found["found"]["name"] == made.commits[2]
    (other,) = found["other_changes"]
    # the middle one was 0.85, and nothing after that one was run but bad
    assert (other["before"], other["after"]) == (made.commits[3], made.commits[6])
    assert other["repeat"] == (
        f"normbench bisect {CASE} --good {made.commits[3][:12]} --bad {made.commits[6][:12]} "
        "--repo repo"
    )
    # the two ends, the third trace, good once more as no two had been equal, and the rest
    assert len(suite.started) == found["steps"] + 3


def test_traces_that_cannot_be_repeated_are_no_evidence(tmp_path: Path) -> None:
    made = made_repository(tmp_path / "repo", planted(32))
    with pytest.raises(CannotAsk, match=r"two traces of good differ \(test_accuracy of epoch 1: 0"):
        ran(Suite(unsteady=True), "--good", made.commits[0])


def test_equal_ends_are_told(tmp_path: Path) -> None:
    made = made_repository(tmp_path / "repo", planted(32, 0.9, 0.9))
    with pytest.raises(CannotAsk, match=r"are equal to the bit: .* search with --test accuracy"):
        ran(Suite(), "--good", made.commits[0])


def test_an_end_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    made = made_repository(tmp_path / "repo", history(0.9, 0.9, "broken"))
    with pytest.raises(
        CannotAsk, match=r"bad \([0-9a-f]{12}\) cannot be run: no row of seed 0: E "
    ):
        ran(Suite(), "--good", made.commits[0])


def test_the_commit_that_lowered_accuracies_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", planted(45, 0.98, 0.96))
    suite = Suite(noise=0.005)
    assert ran(suite, "--good", made.commits[0], "--test", "accuracy", "--json") == 0
    found = document(capsys)
    assert found["found"]["name"] == made.commits[45]
    assert found["probability"] >= 0.98
    assert found["drop"]["low"] < -0.02 < found["drop"]["high"]
    sides = [found["drop"][side]["runs"] for side in ("before", "after")]
    assert sides == [len(found["accuracies"][made.commits[end]]) for end in (0, -1)]
    assert found["steps"] == len(suite.specs) <= 20
    # by a single run each, as a commit in the middle computes what one of the ends does
    ends = {made.commits[0], made.commits[-1]}
    assert ends == set(found["accuracies"])
    assert ends == set(found["alike"].values())
    # whole runs, and no seed of a commit twice
    assert {spec.epochs for spec in suite.specs} == {8}
    assert len(suite.specs) == len(set(suite.trained))
    again = Suite(noise=0.005)
    assert ran(again, "--good", made.commits[0], "--test", "accuracy") == 0
    assert again.started == []
    told = capsys.readouterr().out
    assert f"{made.commits[45][:12]} changed {CASE}" in told
    assert "points (95 %: -" in told


def test_a_search_by_accuracy_ends_with_what_is_left_when_its_runs_are_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", planted(45, 0.98, 0.96))
    arguments = ("--good", made.commits[0], "--test", "accuracy", "--runs", "12", "--json")
    assert ran(Suite(noise=0.005), *arguments) == 1
    found = document(capsys)
    assert made.commits[45] in [each["name"] for each in found["candidates"]]
    assert found["probability"] >= 0.98


def test_too_few_runs_to_compare_the_ends_are_refused(tmp_path: Path) -> None:
    made = made_repository(tmp_path / "repo", history(0.9, 0.8))
    with pytest.raises(CannotAsk, match=r"5 runs are too few to compare the ends: expected at le"):
        ran(Suite(), "--good", made.commits[0], "--test", "accuracy", "--runs", "5")


def test_a_drop_that_is_none_is_not_searched_for(tmp_path: Path) -> None:
    made = made_repository(tmp_path / "repo", planted(45, 0.97, 0.9699))
    with pytest.raises(
        CannotAsk, match=r"bad is not known to be worse than good after 30 runs eac"
    ):
        ran(Suite(noise=0.005), "--good", made.commits[0], "--test", "accuracy")


def test_whole_runs_that_are_equal_to_the_bit_are_no_drop(tmp_path: Path) -> None:
    made = made_repository(tmp_path / "repo", planted(45, 0.97, 0.97))
    with pytest.raises(CannotAsk, match=r"runs of good and bad are equal to the bit: nothing has"):
        ran(Suite(noise=0.005), "--good", made.commits[0], "--test", "accuracy")


def test_runs_that_raise_are_no_accuracies(tmp_path: Path) -> None:
    made = made_repository(tmp_path / "repo", history(0.9, 0.9, "raises"))
    with pytest.raises(
        CannotAsk, match=r"a run ended as error: ZeroDivision.*; search with --test"
    ):
        ran(Suite(), "--good", made.commits[0], "--test", "accuracy")


def test_a_merge_is_told_with_where_to_search_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", history(0.9, 0.9, 0.9))
    made.git("checkout", "--quiet", "-b", "side", made.commits[0])
    (made.folder / "mypkg" / "norms.py").write_text("0.8\n", encoding="utf-8")
    made.git("commit", "--quiet", "-a", "-m", "Lower it")
    made.git("checkout", "--quiet", "main")
    (made.folder / "notes").write_text("1", encoding="utf-8")
    made.git("add", "notes")
    made.git("commit", "--quiet", "-m", "Note it")
    made.git("merge", "--quiet", "--no-edit", "side")
    assert ran(Suite(), "--good", made.commits[0], "--json") == 0
    found = document(capsys)
    assert found["found"]["name"] == made.git("rev-parse", "main")
    assert found["into_merge"] == (
        f"normbench bisect {CASE} --good {made.commits[0][:12]} "
        f"--bad {made.git('rev-parse', 'side')[:12]} --repo repo"
    )


SUITE_FILES: Files = {
    "normbench/__init__.py": "",
    "models/__init__.py": "",
    "bench/test_own_cases.py": "",
    "mypkg/norms.py": "0.9",
}
GRID = """
schema = 1
tier = "smoke"
dataset = "digits"
network = "digits"
recipe = "digits"
epochs = 8
dropout = {dropout}
[[grid]]
norm = ["{norm}"]
regularizer = [{{}}]
batch_size = [64]
[[target]]
test_accuracy = 90
"""


def test_in_the_suites_own_repository_a_case_is_what_each_commit_has_it_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def grid(dropout: float, norm: str = "batch") -> Files:
        return {"bench/cases/digits.toml": GRID.format(dropout=dropout, norm=norm)}

    nothing: Files = {"bench/cases/digits.toml": None, "bench/cases/mnist.toml": ""}
    commits: list[Files] = [
        {**SUITE_FILES, **grid(0.1)},
        {"notes": ""},
        nothing,
        grid(0.2),
        grid(0.2, "layer"),
    ]
    made = made_repository(tmp_path / "repo", commits)
    suite = Suite()
    parser = argparse.ArgumentParser()
    bisect.add_arguments(parser)
    good = ("--repo", "repo", "--good", made.commits[0], "--json")
    # batch is no norm of the last commit's grid, and could be given with --bench-norm
    options = parser.parse_args(["digits-batch-none-b64", *good])
    assert bisect.main(options, suite) == 1
    found = document(capsys)
    assert [each["name"] for each in found["candidates"]] == made.commits[2:4]
    assert found["difference"]["figure"] == "dropout"
    assert found["skipped"][0]["reason"].startswith("'digits-batch-none-b64' is no case: expected ")
    command, folder, environment = suite.started[0]
    assert list(command[1:6]) == [
        *("-m", "pytest", "bench/test_own_cases.py", "--bench-tier", "smoke"),
    ]
    assert environment["PYTHONPATH"].split(":")[0] == str(folder)


def test_another_repository_has_nothing_of_a_norm_of_the_suite(tmp_path: Path) -> None:
    made = made_repository(tmp_path / "repo", history(0.9, 0.8))
    parser = argparse.ArgumentParser()
    bisect.add_arguments(parser)
    given = ["digits-batch-none-b64", "--repo", "repo", "--good", made.commits[0]]
    with pytest.raises(
        GitError, match=r"is not the suite's repository, and batch in digits-batch-n"
    ):
        bisect.main(parser.parse_args(given), Suite())


class Tox(Suite):
    """Stands in for tox: the environment of each torch release comes to an accuracy of its own."""

    listed = "lint\ntests\n" + "".join(
        f"py{python}-torch{release}\n"
        for python in ("311", "312", "313")
        for release in ("211", "212", "213", "214", "215")
    )

    def __call__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> Ended:
        if "list" in command:
            return Ended(0, self.listed)
        self.environment = command[command.index("-e") + 1]
        return super().__call__(command, folder, environment)

    def read(self, _: Path, /) -> str:
        return {"212": "0.9", "213": "broken", "214": "0.8", "215": "0.8"}[self.environment[-3:]]


def test_torch_releases_are_gone_over_in_environments_of_tox(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_repository(tmp_path / "repo", [{"tox.ini": ""}])
    tox = Tox()
    assert ran(tox, "--torch", "2.12:2.15", "--json") == 1
    found = document(capsys)
    assert [each["name"] for each in found["candidates"]] == ["torch-2.13", "torch-2.14"]
    assert found["skipped"] == [
        {"revision": "torch-2.13", "reason": "no row of seed 0: E   SyntaxError: invalid syntax"}
    ]
    assert found["repeat"] == f"normbench bisect {CASE} --torch 2.12:2.14 --repo repo"
    command, folder, environment = tox.started[0]
    assert folder == made.folder
    assert re.fullmatch(
        r"-m tox run -qq -e py31\d-torch212 -x testenv.pass_env\+=PYTHONPATH -- "
        r"bench/test_own_cases.py --bench-tier smoke --bench-cases .*",
        " ".join(command[1:]),
    )
    # where a norm of one's own is imported from
    assert environment["PYTHONPATH"].split(":")[0] == str(tmp_path)


@pytest.mark.parametrize(
    ("releases", "message"),
    [
        (
            "2.10:2.15",
            r"--torch 2.10:2.15: expected an older and a newer release of .*: 2.11, 2.12",
        ),
        ("2.14:2.13", r"--torch 2.14:2.13: expected an older and a newer release"),
    ],
)
def test_releases_that_tox_does_not_know_are_refused(
    releases: str, message: str, tmp_path: Path
) -> None:
    made_repository(tmp_path / "repo", [{"tox.ini": ""}])
    with pytest.raises(GitError, match=message):
        ran(Tox(), "--torch", releases)


def test_without_tox_or_its_file_the_remedy_is_told(tmp_path: Path) -> None:
    made_repository(tmp_path / "repo", [{"tox.ini": ""}])
    made_repository(tmp_path / "other", [{"notes": ""}])

    def without_tox(*_: object) -> Ended:
        return Ended(1, "/usr/bin/python: No module named tox\n")

    parser = argparse.ArgumentParser()
    bisect.add_arguments(parser)
    options = parser.parse_args([CASE, "--repo", "repo", "--torch", "2.12:2.15"])
    with pytest.raises(GitError, match=r"No module named tox.*pip install 'normbench\[tox\]'"):
        bisect.main(options, without_tox)
    with pytest.raises(GitError, match=r"other has no tox.ini: expected a clone of normbench"):
        ran(Tox(), "--torch", "2.12:2.15", "--repo", "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected one of --good REV and --torch A:B"),
        (("--good", "a", "--torch", "2.12:2.13"), "expected one of --good REV and --torch A:B"),
        (("--torch", "2.12"), "'2.12': expected two releases of torch, such as 2.13:2.15"),
    ],
)
def test_options_that_make_no_search_are_refused(
    arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["bisect", CASE, *arguments])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err


NORM = """\
from torch import nn


class Scale(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels, momentum={momentum})
"""


class InThisProcess:
    """Runs `normbench run` in this process, and any other command in one of its own."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester, self._monkeypatch = pytester, monkeypatch

    def __call__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> Ended:
        if list(command[1:4]) != ["-m", "normbench", "run"]:
            return run_process(command, folder, environment)
        with self._monkeypatch.context() as patched:
            patched.syspath_prepend(folder)
            patched.chdir(folder)
            done = self._pytester.runpytest_inprocess(*pytest_arguments(command[4:], folder))
        return Ended(int(done.ret), done.stdout.str())


def test_a_search_that_trains_finds_the_commit(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    modules_loaded: None,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = made_repository(
        tmp_path / "repo", history(*(NORM.format(momentum=m) for m in (0.1, 0.1, 0.2)))
    )
    process = InThisProcess(pytester, monkeypatch)
    arguments = ("--repo", str(made.folder), "--good", made.commits[0], "--state", "state")
    assert ran(process, *arguments, "--json") == 0
    told = capsys.readouterr().out
    found = json.loads(told[told.index("\n{\n") :])
    assert found["found"]["name"] == made.commits[2]
    # what training stores for evaluation alone
    assert found["difference"]["figure"] == "test_loss of epoch 1"
    assert found["steps"] == 1
