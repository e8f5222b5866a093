"""Since when something is not well, and what may have made the difference, in markdown."""

import shlex
from collections.abc import Callable, Mapping, Sequence

from normbench.analysis.alarms import REGRESSION, TARGET, Since, Subject
from normbench.storage.session import StoredSession

# Of more commits, the page of a comparison tells better.
MOST_COMMITS = 20

# Returns a line for each commit after the first one up to the second; empty if it cannot tell.
Log = Callable[[str, str], Sequence[str]]


def since_paragraphs(since: Mapping[Subject, Since], log: Log) -> list[str]:
    """Return a paragraph for all subjects that went bad between the same two sessions.

    It names the last good and the first bad session, what differs between them, the commits in
    between, and the command that finds the one.
    """
    groups: dict[tuple[str, str], list[Subject]] = {}
    for subject, found in since.items():
        good = found.good.name if found.good else ""
        groups.setdefault((good, found.bad.name), []).append(subject)
    return [
        part
        for subjects in groups.values()
        for part in _paragraphs(subjects, since[subjects[0]], log)
    ]


def _paragraphs(subjects: Sequence[Subject], since: Since, log: Log) -> list[str]:
    names = ", ".join(f"`{subject}`" for subject in subjects)
    if since.good is None:
        return [
            f"{names}: first not well in {_session(since.bad)}; no stored session tells that it "
            "was well before."
        ]
    told = f"{names}: last well in {_session(since.good)}, first not in {_session(since.bad)}."
    changed = [f"{name} {_text(a)} → {_text(b)}" for name, (a, b) in since.changed.items()]
    parts = [told, f"Changed in between: {'; '.join(changed)}."] if changed else [told]
    if since.commits is None:
        same = "The commit is the same in both, or not known."
        return [*parts, same] if not changed else parts
    good, bad = (commit.removesuffix("+") for commit in since.commits)
    commits = log(good, bad)
    listed = "\n".join(f"- `{line.replace('`', ' ')}`" for line in commits[:MOST_COMMITS])
    more = f"\n- and {len(commits) - MOST_COMMITS} more" if len(commits) > MOST_COMMITS else ""
    suspects = f"Suspects, the commits of `{good}..{bad}`"
    parts.append(f"{suspects}:\n\n{listed}{more}" if commits else f"{suspects}.")
    if case := _case(subjects, since.bad):
        command = f"normbench bisect {shlex.quote(case)} --good {good} --bad {bad}"
        parts.append(f"This finds the one: `{command}`")
    return parts


def _session(session: StoredSession) -> str:
    environment = session.document.environment
    commit = f", commit {environment['commit']}" if environment.get("commit") else ""
    day = session.document.started[:10]
    return f"the session {session.name} ({day}, torch {environment.get('torch')}{commit})"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _case(subjects: Sequence[Subject], session: StoredSession) -> str:
    """Return the id of the first subject that is a case; empty without one."""
    titles = {stored.spec.title: stored.case.id for stored in session.judged_cases}
    for subject in subjects:
        if subject.kind == TARGET:
            return subject.name
        if subject.kind == REGRESSION and subject.name in titles:
            return titles[subject.name]
    return ""
