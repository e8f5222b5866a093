"""How cases went over the stored sessions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from normbench.storage.session import SessionError, StoredSession, read_session

# Sessions looked at, the newest: a nightly of two months.
SESSIONS = 60


def history(session: StoredSession) -> list[dict[str, Any]]:
    """Return, of each case of the session, its accuracy in it and before.

    Cases that only this session has are left out. A session that cannot be read is passed over:
    another version, or another program, may have left it. So is one with a planted fault, whose
    accuracies are of broken code; of such a one itself there is no history.
    """
    if session.planted:
        return []
    folder = session.folder
    newest = sorted(f for f in folder.parent.iterdir() if f.name <= folder.name)[-SESSIONS:]
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    here = {case for case, _ in _points(session)}
    for other in newest:
        for case, point in _points(_read(other)):
            points.setdefault(case, []).append(point)
    return [
        {"case": name, "title": title, "points": found}
        for (name, title), found in points.items()
        if (name, title) in here and len(found) > 1
    ]


def _read(folder: Path) -> StoredSession | None:
    try:
        session = read_session(folder)
    except SessionError:
        return None
    return None if session.planted else session


def _points(session: StoredSession | None) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield each case of a session with its accuracy, and what it was measured with.

    A case is known by a name that no other case has, and by the title that baselines know it by.
    """
    if session is None:
        return
    environment = session.document.environment
    head = {
        "session": session.name,
        "started": session.document.started,
        "commit": environment.get("commit"),
        "torch": environment.get("torch"),
    }
    for case in session.judged_cases:
        if case.test_accuracy is None:
            continue
        margin = case.margin_of_error
        yield (
            (f"{case.grid}: {case.spec.title}", case.spec.title),
            {
                **head,
                "accuracy": round(100 * case.test_accuracy, 3),
                "interval": None if margin is None else round(100 * margin, 3),
                "seeds": case.runs,
            },
        )
