"""What a session raises an alarm for, and since when: against the sessions before it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from normbench.analysis.claims import stored_claims
from normbench.analysis.verdicts import NOT_FAILED
from normbench.results import CaseVerdict, Outcome
from normbench.storage.session import SessionError, StoredSession

# What a case is well by, beside its baseline; of the other outcomes, all but a regression leave it
# open.
WELL = frozenset({Outcome.NO_REGRESSION, Outcome.IMPROVEMENT, Outcome.UNCHANGED})

# What may have made the difference, by its name in a session's environment.
GROUND = ("torch", "torchvision", "python", "processor", "gpus")


@dataclass(frozen=True, order=True)
class Subject:
    """What an alarm may be about: ``kind`` says by what it is judged, ``name`` which one it is."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


REGRESSION, TARGET, CLAIM, CHECK, TRACE = ("regression of", "case", "claim", "check of", "trace")


def standing(session: StoredSession) -> dict[Subject, bool]:
    """Return whether each subject is well; what the session leaves open is not there."""
    found: dict[Subject, bool] = {}
    comparison = session.document.comparison
    for case in comparison.cases if comparison is not None else ():
        if case.outcome is Outcome.REGRESSION or case.outcome in WELL:
            found[Subject(REGRESSION, case.spec.title)] = case.outcome in WELL
    for judged in session.judged_cases:
        if judged.verdict is not CaseVerdict.SKIPPED:
            found[Subject(TARGET, judged.case.id)] = judged.verdict in NOT_FAILED
    for result in stored_claims(session):
        found[Subject(CLAIM, result.claim.name)] = not result.unexpected
    for checked in session.checks:
        found[Subject(CHECK, f"{checked.kind} {checked.subject}")] = not checked.broken
    for trace in session.traces:
        found[Subject(TRACE, trace.name)] = not trace.broken
    return found


def alarms(session: StoredSession) -> list[Subject]:
    """Return what the session raises an alarm for, regressions first.

    A case that has missed its target as well is told once, as a regression.
    """
    bad = {subject for subject, well in standing(session).items() if not well}
    comparison = session.document.comparison
    worse = {
        case.spec
        for case in (comparison.cases if comparison is not None else ())
        if case.outcome is Outcome.REGRESSION
    }
    told = {Subject(TARGET, c.case.id) for c in session.judged_cases if c.spec in worse}
    order = (REGRESSION, TARGET, CLAIM, CHECK, TRACE)
    return sorted(bad - told, key=lambda subject: (order.index(subject.kind), subject.name))


@dataclass(frozen=True)
class Since:
    """The last session in which a subject was well, and the first one after it in which it was not.

    ``good`` is None where no earlier session tells that it was.
    """

    good: StoredSession | None
    bad: StoredSession

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """What the environments of the two have that differs: before and after, by its name."""
        if self.good is None:
            return {}
        before, after = self.good.document.environment, self.bad.document.environment
        pairs = {name: (before.get(name), after.get(name)) for name in GROUND}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    @property
    def commits(self) -> tuple[str, str] | None:
        """The commits of the two; None where they are equal or one is not known."""
        if self.good is None:
            return None
        good, bad = (s.document.environment.get("commit") for s in (self.good, self.bad))
        return (str(good), str(bad)) if good and bad and good != bad else None


def since_when(
    subjects: Iterable[Subject], session: StoredSession, earlier: Iterable[StoredSession]
) -> Mapping[Subject, Since]:
    """Return since when each subject, for which the session raises an alarm, is not well.

    ``earlier`` are the sessions before it, the newest first; no more of them are read than it
    takes. One that leaves a subject open, or has it not, tells nothing of it.
    """
    first_bad = dict.fromkeys(subjects, session)
    last_good: dict[Subject, StoredSession] = {}
    if first_bad:
        for other in earlier:
            try:
                found = standing(other)
            except SessionError:  # its rows, checks or traces cannot be read
                continue
            for subject, well in found.items():
                if subject not in first_bad or subject in last_good:
                    continue
                if well:
                    last_good[subject] = other
                else:
                    first_bad[subject] = other
            if len(last_good) == len(first_bad):
                break
    return {subject: Since(last_good.get(subject), bad) for subject, bad in first_bad.items()}
