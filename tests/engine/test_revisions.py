"""Lines of commits, and worktrees that leave the user's checkout as it is."""

import shutil
from pathlib import Path

import pytest

from normbench.engine.revisions import GitError, Repository, Revision

from ..repositories import Made, made_repository, without_settings


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Return a repository of five commits, each of which writes another number to a file."""
    without_settings(monkeypatch, tmp_path)
    return made_repository(tmp_path / "repo", [{"src/number": f"{n}\n"} for n in range(1, 6)])


def names(line: list[Revision]) -> list[str]:
    return [revision.name for revision in line]


def test_a_line_goes_from_good_to_bad(made: Made) -> None:
    line = Repository(made.folder).line("HEAD~3", "main")
    assert names(line) == made.commits[1:]
    assert line[-1] == Revision(
        made.commits[4],
        "2026-01-05T00:00:00+00:00",
        "Jane Doe",
        "Commit 5",
        (made.commits[3],),
    )
    assert line[-1].title == f"{made.commits[4][:12]}  2026-01-05  Commit 5"


def merged(made: Made) -> str:
    """Merge a branch of two commits, which left after the second commit, after the fifth one."""
    made.git("checkout", "--quiet", "-b", "side", made.commits[1])
    for n in (1, 2):
        (made.folder / "aside").write_text(f"{n}\n", encoding="utf-8")
        made.git("add", "aside")
        made.git("commit", "--quiet", "-m", f"Aside {n}")
    made.git("checkout", "--quiet", "main")
    made.git("merge", "--quiet", "--no-edit", "side")
    return made.git("rev-parse", "main")


def test_of_merges_a_line_has_the_first_parent_alone(made: Made) -> None:
    merge = merged(made)
    repository = Repository(made.folder)
    line = repository.line(made.commits[0], "main")
    assert names(line) == [*made.commits, merge]
    assert repository.merge_base(line[-1]) == made.commits[1]
    assert repository.changed_files(line[-1])[0] == "aside | 1 +"


def test_a_line_from_a_merged_branch_leaves_out_what_it_came_from(made: Made) -> None:
    merge = merged(made)
    # of main, what is not in the branch's own history
    good = made.git("rev-parse", "side")
    assert names(Repository(made.folder).line("side", "main")) == [good, *made.commits[2:], merge]


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("main", "main~2", r"main \(.*\) is no ancestor of main~2 .*; exchange the two"),
        ("side", "main", r"side .* is no ancestor of main .*; name one of bad's own history"),
        ("main", "HEAD", r"main and HEAD are one commit, [0-9a-f]{12}: expected two"),
        ("none", "main", r"'none' names no commit of .*repo: expected a hash, a tag, a branch, or"),
        ("--all", "main", r"'--all' names no commit"),
    ],
)
def test_a_line_of_no_sense_is_refused(made: Made, good: str, bad: str, message: str) -> None:
    made.git("branch", "side", made.git("commit-tree", "-m", "Alone", "main^{tree}"))
    with pytest.raises(GitError, match=message):
        Repository(made.folder).line(good, bad)


def test_a_shallow_clone_is_told(made: Made, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    made.git("clone", "--quiet", "--depth", "1", f"file://{made.folder}", str(shallow))
    with pytest.raises(GitError, match=r"shallow clone: git fetch --unshallow brings older"):
        Repository(shallow).line("HEAD~3", "HEAD")


def test_a_folder_knows_its_place_in_the_repository(made: Made, tmp_path: Path) -> None:
    repository = Repository(made.folder / "src")
    assert (repository.root, repository.inside) == (made.folder, Path("src"))
    assert Repository(made.folder).inside == Path()
    with pytest.raises(
        GitError, match=r"not a git repository.*; name a folder in a git repository with"
    ):
        Repository(tmp_path)
    with pytest.raises(GitError, match=r"is no folder: expected one in a git repository"):
        Repository(tmp_path / "gone")


def test_changes_to_files_that_git_knows_are_seen(made: Made) -> None:
    repository = Repository(made.folder)
    clean = repository.state()
    (made.folder / "new").write_text("", encoding="utf-8")
    assert not repository.is_changed
    assert repository.state() == clean
    (made.folder / "src" / "number").write_text("7\n", encoding="utf-8")
    assert repository.is_changed
    assert repository.state() != clean


def everything(made: Made) -> list[object]:
    """Return all that the user has in a checkout: refs, settings, index, files, worktrees."""
    inside = made.folder / ".git"
    files = [
        file for file in made.folder.rglob("*") if file.is_file() and inside not in file.parents
    ]
    return [
        *((inside / name).read_bytes() for name in ("HEAD", "config", "index")),
        made.git("for-each-ref"),
        made.git("worktree", "list"),
        sorted((str(file), file.read_bytes()) for file in files),
        (inside / "worktrees").exists(),
    ]


def test_worktrees_have_a_commits_files_and_leave_the_checkout_alone(made: Made) -> None:
    (made.folder / "src" / "number").write_text("changed\n", encoding="utf-8")
    hook = made.folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {made.folder}/hooked\n", encoding="utf-8")
    hook.chmod(0o755)
    before = everything(made)
    repository = Repository(made.folder)
    line = repository.line(made.commits[0], "main")
    with repository.worktrees() as worktrees:
        folders = [worktrees.folder(commit) for commit in line]
        assert [(each / "src" / "number").read_text() for each in folders] == [
            f"{n}\n" for n in range(1, 6)
        ]
        assert worktrees.folder(line[2]) == folders[2]
    assert everything(made) == before
    assert not folders[0].parent.exists()


def stopped(repository: Repository, line: list[Revision]) -> None:
    """Check commits out, delete the files of one, and stop as Ctrl-C does."""
    with repository.worktrees() as worktrees:
        worktrees.folder(line[1])
        shutil.rmtree(worktrees.folder(line[2]))
        raise KeyboardInterrupt


def test_worktrees_go_when_they_are_stopped_or_deleted_meanwhile(made: Made) -> None:
    before = everything(made)
    repository = Repository(made.folder)
    with pytest.raises(KeyboardInterrupt):
        stopped(repository, repository.line(made.commits[0], "main"))
    assert everything(made) == before


def test_another_repository_in_the_environment_is_not_taken(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as in a hook of git's
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert Repository(made.folder).commit("main").name == made.commits[4]


def test_a_repository_of_the_suite_is_told_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_settings(monkeypatch, tmp_path)
    parts = ("normbench/__init__.py", "models/__init__.py", "bench/cases/digits.toml")
    made = made_repository(tmp_path / "suite", [{parts[0]: ""}, dict.fromkeys(parts, "")])
    repository = Repository(made.folder)
    first, second = (repository.commit(commit) for commit in made.commits)
    assert (repository.is_suite(first), repository.is_suite(second)) == (False, True)
    assert (repository.has(first, "bench/cases"), repository.has(second, "bench/cases")) == (
        False,
        True,
    )
