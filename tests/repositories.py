"""Git repositories of a planned history, made in a moment."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# Of a commit: the files that it writes, by path; None takes one away.
Files = Mapping[str, str | None]

# In a commit's day, so that its date tells its place.
FIRST_DAY = 1767225600  # 2026-01-01


@dataclass(frozen=True)
class Made:
    """A repository, and its commits' hashes from the first to the last."""

    folder: Path
    commits: list[str]

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


def without_settings(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let git know neither the user's settings nor another repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Jane Doe")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "jane@example.org")


def made_repository(folder: Path, history: Sequence[Files]) -> Made:
    """Make a repository with a commit for each entry, one after the other, and check it out."""
    stream: list[str] = []
    for number, files in enumerate(history, start=1):
        when = f"Jane Doe <jane@example.org> {FIRST_DAY + 86400 * (number - 1)} +0000"
        subject = f"Commit {number}"
        stream += ["commit refs/heads/main", f"mark :{number}", f"author {when}"]
        stream += [f"committer {when}", f"data {len(subject)}", subject]
        for path, text in files.items():
            if text is None:
                stream.append(f"D {path}")
            else:
                stream += [f"M 100644 inline {path}", f"data {len(text)}", text]
    folder.mkdir(parents=True)
    made = Made(folder, [])
    made.git("init", "--quiet", "--initial-branch", "main")
    subprocess.run(
        ["git", "-C", str(folder), "fast-import", "--quiet", "--export-marks=marks"],
        input="\n".join([*stream, "done", ""]),
        text=True,
        check=True,
    )
    made.git("reset", "--quiet", "--hard")
    (folder / "marks").unlink()
    made.commits.extend(made.git("rev-list", "--reverse", "main").split())
    return made
