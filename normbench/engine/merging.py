"""Several sessions made into one, and judged as if they had been one."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from normbench.analysis.comparison import Reference
from normbench.analysis.spread import Spread
from normbench.analysis.verdicts import NOT_FAILED, with_verdicts
from normbench.cases.case import Case
from normbench.engine.controller import as_baseline, judged_claim, note_comparison
from normbench.report.writer import write_all
from normbench.results import CaseVerdict, RunResult
from normbench.storage.baseline import find_baseline
from normbench.storage.documents import StoredCase, StoredClaim
from normbench.storage.environment import new_session_name
from normbench.storage.merging import (
    copy_findings,
    joined_environment,
    joined_runs,
    require_one,
    require_parts,
    seconds_taken,
    started_at,
)
from normbench.storage.runs import RunStore
from normbench.storage.session import Session, SessionError, StoredSession, read_session
from normbench.training.datasets import Dataset, facts_with_contents
from normbench.training.fingerprints import own_packages


class Merged(NamedTuple):
    """The session that several have become, and what the user should know beside it."""

    session: StoredSession
    notes: tuple[str, ...]


def merge(
    sessions: Sequence[StoredSession], results: Path, baselines: Sequence[str] | None = None
) -> Merged:
    """Make one session of several, in ``results``, and judge and draw it as if it had been one.

    The verdicts on cases and claims and the comparison with the baselines are worked out anew, of
    the runs of all; the outcomes of tests are those that were. ``baselines`` stand in place of
    those that the sessions had. Raises SessionError for what are no parts of one session, and
    BaselineError for a baseline that cannot be had.
    """
    stored = read_session(_joined(sessions, results, baselines).folder)
    return Merged(stored, tuple(write_all(stored)))


def _joined(
    sessions: Sequence[StoredSession], results: Path, baselines: Sequence[str] | None
) -> Session:
    """Return the session that was made of several; their rows are let go of when it is written."""
    sessions = [StoredSession(each.folder, each.document) for each in sessions]
    require_parts(sessions)
    _require_one_code(sessions)
    runs = joined_runs(sessions)
    options = {**sessions[0].document.options, "shard": None}
    if baselines is None:
        baselines = _baselines(sessions)
    folder = results / "reference"
    found = [find_baseline(text, folder) for text in baselines]
    effect = options.get("minimum_effect")
    reference = Reference(found, effect) if found else None
    session = Session(
        results,
        new_session_name(),
        workers=sum(each.document.workers for each in sessions),
        options={
            **options,
            "baselines": list(baselines),
            "merged": [each.name for each in sessions],
        },
        environment=joined_environment(sessions),
        datasets=_datasets(sessions, runs),
        started=min(map(started_at, sessions)),
        earlier_seconds=seconds_taken(sessions),
    )
    _judge(session, sessions, {run.spec.key: run for run in runs}, reference)
    session.open()
    RunStore(session.folder).write(runs)
    copy_findings(sessions, session.folder)
    session.write("finished")
    session.close()
    return session


def _require_one_code(sessions: Sequence[StoredSession]) -> None:
    """Raise SessionError where sessions have trained by different code, by what each run executes.

    What a run has of a user's own tells which runs have the same code.
    """
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for session in sessions:
        for run in session.results.values():
            found.setdefault(own_packages(run.spec), []).append((session.name, run.code))
    for packages, told in found.items():
        require_one(f"the code of {', '.join(('normbench', *packages))}", told)


def _baselines(sessions: Sequence[StoredSession]) -> list[str]:
    """Return the baselines that all sessions had; raises SessionError where they differ."""
    found = {tuple(each.document.options.get("baselines") or ()): each.name for each in sessions}
    if len(found) > 1:
        told = " and ".join(
            f"{', '.join(names) or 'none'} in {name}" for names, name in found.items()
        )
        raise SessionError(
            f"the baselines are {told}: expected the same; say by --baseline which are meant"
        )
    return list(next(iter(found)))


def _datasets(sessions: Sequence[StoredSession], runs: Sequence[RunResult]) -> dict[str, Dataset]:
    contents: dict[str, set[str]] = {
        name: set() for session in sessions for name in session.document.datasets
    }
    for run in runs:
        contents.setdefault(run.spec.dataset, set()).update({run.data} - {""})
    return facts_with_contents(contents)


def _judge(
    session: Session,
    parts: Sequence[StoredSession],
    results: Mapping[str, RunResult],
    reference: Reference | None,
) -> None:
    stored = _cases(parts)
    now = as_baseline(session, session.options.get("seeds") == "auto", results)
    judged = {case_id: case for case_id, case in stored.items() if case.verdict is not None}
    session.cases = with_verdicts(
        map(_planned, stored.values()),
        {case_id: _outcome(case) for case_id, case in judged.items()},
        results,
        Spread(now),
        reference,
        {case_id: case.seeds for case_id, case in judged.items()},
        {
            case_id: case.reason
            for case_id, case in judged.items()
            if case.verdict is CaseVerdict.SKIPPED
        },
    )
    cases = {case_id: case.case for case_id, case in stored.items()}
    claims = {claim.name: claim for part in parts for claim in part.document.claims}
    session.claims = [_judged(claim, cases, results) for claim in claims.values()]
    if reference is not None:
        note_comparison(session, reference.compare(now))


def _cases(parts: Sequence[StoredSession]) -> dict[str, StoredCase]:
    """Return the cases of all by their ids, with their verdicts, in the order of the grids.

    One that a test of a whole grid has asked for is in a session without a verdict as well.
    """
    found: dict[str, StoredCase] = {}
    for part in parts:
        for stored in part.document.cases:
            if stored.case.id not in found or stored.verdict is not None:
                found[stored.case.id] = stored
    whole = [name for part in parts for name in part.document.whole]
    order = {name: place for place, name in reversed(list(enumerate(whole)))}
    return dict(sorted(found.items(), key=lambda each: order.get(each[0], len(whole))))


def _planned(stored: StoredCase) -> Case:
    """Return the case without the seeds that a suspicion has added."""
    return dataclasses.replace(stored.case, seeds=stored.seeds - stored.confirming)


def _outcome(stored: StoredCase) -> str:
    """Return the outcome of the case's test, as pytest calls it, by the verdict."""
    if stored.verdict is CaseVerdict.SKIPPED:
        return "skipped"
    return "passed" if stored.verdict in NOT_FAILED else "failed"


def _judged(
    claim: StoredClaim, cases: Mapping[str, Case], results: Mapping[str, RunResult]
) -> StoredClaim:
    """Judge a claim anew; one of whose cases some are not there stays as it was."""
    try:
        return judged_claim(claim.claim(cases), results)
    except KeyError:
        return claim
