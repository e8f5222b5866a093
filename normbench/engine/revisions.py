"""Revisions of a git repository: the line between two commits, and folders with their files.

The user's checkout, its index, branches, stash and settings are only ever read.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# What lets git take another repository, or another index, than that of the folder it is called in.
OF_A_REPOSITORY = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"),
    *("GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"),
)

# Whatever the user has set: no hook runs, the index is not refreshed, names are in UTF-8.
SETTINGS = (
    *("--no-optional-locks", "--no-pager", "-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "log.showSignature=false", "-c", "i18n.logOutputEncoding=UTF-8"),
)

FIELDS = "%x1f".join(("%H", "%P", "%aI", "%an", "%s"))


class GitError(ValueError):
    """What git cannot do, in one line."""


@dataclass(frozen=True)
class Revision:
    """A commit by its hash, or a release of torch by its number; that one has nothing else.

    ``date`` is the author's, with the time zone; ``parents`` are hashes, of a merge several.
    """

    name: str
    date: str = ""
    author: str = ""
    subject: str = ""
    parents: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        return self.name[:12]

    @property
    def title(self) -> str:
        """What it is called in a list: a commit with its day and subject."""
        return "  ".join(filter(None, (self.short, self.date[:10], self.subject)))


class Repository:
    """The git repository in which ``folder`` lies; ``inside`` is the folder's path in it.

    Raises GitError where it lies in none.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise GitError(f"{folder} is no folder: expected one in a git repository, as --repo")
        self.root = folder
        try:
            found = self._git("rev-parse", "--show-toplevel", "--show-prefix").splitlines()
        except GitError as error:
            raise GitError(f"{error}; name a folder in a git repository with --repo") from error
        self.root = Path(found[0])
        self.inside = Path(found[1] if len(found) > 1 else "")

    def commit(self, revision: str) -> Revision:
        """Return the commit that a hash, a tag, a branch or the like names."""
        command = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        found = self._run(*command)
        if found.returncode:
            shallow = self._git("rev-parse", "--is-shallow-repository") == "true"
            remedy = "; it is a shallow clone: git fetch --unshallow brings older commits"
            raise GitError(
                f"{revision!r} names no commit of {self.root}: expected a hash, a tag, a branch, "
                f"or such as HEAD~20{remedy if shallow else ''}"
            )
        (commit,) = self._log("-1", found.stdout.strip())
        return commit

    def line(self, good: str, bad: str) -> list[Revision]:
        """Return the commits from ``good`` to ``bad``, of merges along the first parent alone.

        Those that can be reached from good are left out, as git bisect does. Raises GitError if
        good is no ancestor of bad, or the same commit.
        """
        first, last = self.commit(good), self.commit(bad)
        if first == last:
            raise GitError(f"{good} and {bad} are one commit, {first.short}: expected two")
        if not self._is_ancestor(first, last):
            turned = self._is_ancestor(last, first)
            remedy = "exchange the two" if turned else "name one of bad's own history"
            raise GitError(
                f"{good} ({first.short}) is no ancestor of {bad} ({last.short}): expected good to "
                f"be an older commit that bad was made from; {remedy}"
            )
        between = self._log("--first-parent", "--reverse", f"{first.name}..{last.name}")
        return [first, *between]

    def _is_ancestor(self, older: Revision, newer: Revision) -> bool:
        return not self._run("merge-base", "--is-ancestor", older.name, newer.name).returncode

    def _log(self, *arguments: str) -> list[Revision]:
        printed = self._git("log", "--no-color", f"--format={FIELDS}", *arguments, "--")
        found = []
        for line in printed.splitlines():
            name, parents, date, author, subject = line.split("\x1f")
            found.append(Revision(name, date, author, subject, tuple(parents.split())))
        return found

    def has(self, commit: Revision, path: str) -> bool:
        """Tell whether a commit has a file or folder."""
        return not self._run("cat-file", "-e", f"{commit.name}:{path}").returncode

    def is_suite(self, commit: Revision) -> bool:
        """Tell whether a commit is of normbench itself."""
        parts = ("normbench/__init__.py", "models/__init__.py", "bench/cases")
        return all(self.has(commit, part) for part in parts)

    def merge_base(self, commit: Revision) -> str:
        """Return the commit at which the two sides of a merge parted."""
        return self._git("merge-base", *commit.parents[:2])

    def changed_files(self, commit: Revision) -> list[str]:
        """Return which files a commit changed, and how much, a line each; to its first parent."""
        between = (f"{commit.name}^1", commit.name)
        command = ("diff", "--no-color", "--no-ext-diff", "--stat=100", "--stat-count=20")
        return [line.strip() for line in self._git(*command, *between, "--").splitlines()]

    @property
    def is_changed(self) -> bool:
        """Whether files of the checkout differ from its commit."""
        return bool(self._git("status", "--porcelain", "--untracked-files=no"))

    def state(self) -> str:
        """Return a digest of the checkout's commit and of how its files differ from that."""
        told = self._git("rev-parse", "HEAD") + self._git("diff", "HEAD", "--binary")
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @contextmanager
    def worktrees(self) -> Iterator["Worktrees"]:
        """Yield what checks commits out, in a folder that is removed at the end."""
        with tempfile.TemporaryDirectory(
            prefix="normbench-bisect-", ignore_cleanup_errors=True
        ) as folder:
            worktrees = Worktrees(self, Path(folder).resolve())
            try:
                yield worktrees
            finally:
                with _undisturbed():
                    worktrees.remove()

    def add_worktree(self, commit: Revision, folder: Path) -> None:
        self._git("worktree", "add", "--quiet", "--detach", str(folder), commit.name)

    def remove_worktree(self, folder: Path) -> None:
        """Remove a worktree with what git notes of it, whatever has become of its files."""
        # never `prune`, which would take the user's own where their disk is not there
        if self._run("worktree", "remove", "--force", "--force", str(folder)).returncode:
            shutil.rmtree(folder, ignore_errors=True)
            self._run("worktree", "remove", "--force", "--force", str(folder))

    def _git(self, *arguments: str) -> str:
        """Return what git prints; raises GitError, with what it says, where it fails."""
        done = self._run(*arguments)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"it exited with {done.returncode}"]
            raise GitError(f"git {arguments[0]} in {self.root}: {said[-1].removeprefix('fatal: ')}")
        return done.stdout.removesuffix("\n")

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        kept = {name: value for name, value in os.environ.items() if name not in OF_A_REPOSITORY}
        try:
            return subprocess.run(
                ["git", "-C", str(self.root), *SETTINGS, *arguments],
                env={**kept, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                # Ctrl-C ends a search, and no command of git in the midst of it
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise GitError("git is not installed: expected the command git") from error


class Worktrees:
    """Commits checked out below ``folder``, each once, as detached worktrees of a repository."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self.repository = repository
        self._folder = folder
        self._made: list[Path] = []

    def folder(self, commit: Revision) -> Path:
        """Return the folder that has a commit's files."""
        folder = self._folder / commit.short
        if folder not in self._made:
            self._made.append(folder)
            self.repository.add_worktree(commit, folder)
        return folder

    def remove(self) -> None:
        for folder in self._made:
            self.repository.remove_worktree(folder)
        self._made.clear()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C wait until the block has cleared up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ended_by_termination() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that what is to be cleared up is."""

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
