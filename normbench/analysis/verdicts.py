"""What a case comes to: pytest's outcome of its test, its runs, and the room to its target."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from normbench.analysis.comparison import (
    COMPARED,
    Comparison,
    Reference,
    margin_in_standard_errors,
)
from normbench.analysis.spread import Spread
from normbench.analysis.statistics import Estimate, Variance
from normbench.analysis.thresholds import MARGIN, MAX_UNDECIDED
from normbench.cases.case import Case
from normbench.results import CaseVerdict, Outcome, RunResult, Runs
from normbench.storage.documents import StoredCase
from normbench.storage.session import StoredSession

NOT_FAILED = (
    CaseVerdict.PASSED,
    CaseVerdict.UNCHANGED,
    CaseVerdict.MEASURED,
    CaseVerdict.MARGINAL,
    CaseVerdict.SKIPPED,
)


def case_verdict(
    case: Case, outcome: str, runs: Sequence[RunResult], variance: Variance
) -> CaseVerdict:
    """Return the verdict on a case whose test came out as pytest's ``outcome``.

    A case that failed as a run of it came to a bad end is called by that end; one that passed
    is unchanged if an earlier session has trained its runs, measured if it has no target, and
    marginal with few standard errors of room.
    """
    ends = [run.status for run in runs if run.status != "ok"]
    if outcome == "failed" and ends:
        return CaseVerdict(ends[0])
    if outcome == "passed" and Runs.of(runs).unchanged:
        return CaseVerdict.UNCHANGED
    if outcome == "passed" and not case.has_target:
        return CaseVerdict.MEASURED
    accuracies = [run.test_accuracy for run in runs if run.status == "ok"]
    if (
        outcome == "passed"
        and margin_in_standard_errors(accuracies, case.target, variance) < MARGIN
    ):
        return CaseVerdict.MARGINAL
    return CaseVerdict(outcome)


def with_verdicts(
    cases: Iterable[Case],
    outcomes: Mapping[str, str],
    results: Mapping[str, RunResult],
    own: Spread,
    reference: Reference | None,
    seeds: Mapping[str, int] | None = None,
    skipped: Mapping[str, str] | None = None,
) -> list[StoredCase]:
    """Return the cases as session.json keeps them; those without an outcome have no verdict.

    ``results`` are the session's runs by their specs' keys, ``seeds`` the numbers of runs that
    cases asked for, where they differ from those that were planned, and ``skipped`` says why cases
    were. The variance of a case is that of the session's ``own`` runs where it is known, else the
    baselines'.
    """
    stored = []
    for planned in cases:
        if planned.id not in outcomes:
            stored.append(StoredCase.of(planned))
            continue
        asked = (seeds or {}).get(planned.id, planned.seeds)
        case = dataclasses.replace(planned, seeds=asked)
        variance = own.variance(case.spec)
        if reference is not None and not variance.known:
            variance = reference.variance(case.spec)
        runs = [results[spec.key] for spec in case.specs if spec.key in results]
        verdict = case_verdict(case, outcomes[case.id], runs, variance)
        confirming = max(0, asked - planned.seeds)
        stored.append(
            StoredCase.of(
                case,
                confirming=confirming,
                verdict=verdict,
                reason=_reason(runs) or (skipped or {}).get(case.id, ""),
                **_figures(runs, variance),
            )
        )
    return stored


def _reason(runs: Sequence[RunResult]) -> str:
    """Return what the runs say that ended badly or as no audit should, each text once."""
    return "; ".join(dict.fromkeys(" ".join(run.message.split()) for run in runs if run.message))


def _figures(runs: Sequence[RunResult], variance: Variance) -> dict[str, float | None]:
    accuracies = [run.test_accuracy for run in runs if run.status == "ok"]
    if not accuracies:
        return {"runs": 0}
    mean = Estimate.mean(accuracies, variance)
    trained = sum(run.status == "ok" and not run.replayed for run in runs)
    margin = mean.margin_of_error(0.025) if variance.known and trained else None
    return {"runs": trained, "test_accuracy": mean.value, "margin_of_error": margin}


def verdict_counts(cases: Iterable[StoredCase]) -> dict[CaseVerdict, int]:
    """Return how many cases came to each verdict, the most frequent first."""
    return dict(Counter(c.verdict for c in cases if c.verdict is not None).most_common())


def shortcomings(session: StoredSession) -> list[str]:
    """Return, a line each, why a session is no pass beside its tests.

    That is a regression, a session that ran nothing, and a comparison without a case; the rest is
    asked for by --bench-strict.
    """
    document, options = session.document, session.document.options
    comparison = Comparison.of_stored(document.comparison) if document.comparison else None
    skipped = [case for case in session.judged_cases if case.verdict is CaseVerdict.SKIPPED]
    found = []
    if skipped and len(skipped) == len(session.judged_cases) and not session.claims:
        found.append(f"nothing was run: {_named(len(skipped), 'case')} skipped, of all selected")
    elif skipped and options.get("strict"):
        listed = _listed(case.case.id for case in skipped)
        found.append(f"--bench-strict: {_named(len(skipped), 'case')} skipped: {listed}")
    found += [
        f"the data set {name} was not the same in all runs ({facts.content}): expected equal "
        "images and labels each time that it is loaded"
        for name, facts in document.datasets.items()
        if "+" in facts.content
    ]
    if comparison is not None:
        if worse := comparison.regressions:
            listed = _listed(case.spec.title for case in worse)
            found.append(
                f"{_named(len(worse), 'case')} worse than in {comparison.baseline}: {listed}"
            )
        # what a shard leaves open is judged of all of them together
        whole = not options.get("shard")
        # a session of traces alone has compared those
        if whole and (session.judged_cases or not session.traces):
            found += without_comparison(comparison)
        if whole and options.get("strict"):
            most = float(options.get("max_undecided", MAX_UNDECIDED))
            found += [f"--bench-strict: {gap}" for gap in gaps(comparison, most)]
    return found


def replay_lines(session: StoredSession) -> list[str]:
    """Say, a line each, which rows were taken from earlier sessions, and what an audit found."""
    results = session.results.values()
    taken = Counter((run.replayed, run.torch) for run in results if run.replayed)
    audits = [run for run in results if run.audits]
    here = session.document.environment.get("torch")
    lines = [
        f"{_named(number, 'row')} taken from the session {since}"
        f"{'' if torch == here else f', trained by torch {torch}: the traces are equal to the bit'}"
        for (since, torch), number in taken.items()
    ]
    seconds = session.document.options.get("replay_audit")
    if audits:
        differing = [run for run in audits if run.message]
        found = f"{len(differing)} of them differ" if differing else "all equal to the stored rows"
        lines.append(f"audit: {_named(len(audits), 'run')} trained again, {found}")
    elif taken and seconds:
        lines.append(f"audit: nothing was trained again, as no case takes {seconds:g} s or less")
    return lines


def without_comparison(comparison: Comparison) -> list[str]:
    """Return a line for each baseline, of one or several, that nothing was compared with."""
    if comparison.of(*COMPARED):
        return [
            f"nothing was compared with the baseline {name}: expected cases that both have"
            for name in comparison.idle
        ]
    counts = ", ".join(f"{n} {outcome}" for outcome, n in comparison.counts.items())
    return [
        f"nothing was compared with the baseline {comparison.baseline} ({counts or 'no case'}): "
        "expected a case that both have, with two runs or more in the baseline"
    ]


def gaps(comparison: Comparison, max_undecided: float, suspicion: bool = False) -> list[str]:
    """Return, a line each, what a comparison leaves open: what a strict one fails for.

    ``max_undecided`` is the share of the compared cases that may be undecided or suspected;
    ``suspicion`` takes every suspected case for a gap, as where none could be trained again.
    """
    found = []
    suspected = (Outcome.SUSPECTED,) if suspicion else ()
    for outcome in (*suspected, Outcome.NOT_COMPARABLE, Outcome.ONLY_NOW):
        if cases := comparison.of(outcome):
            listed = _listed(case.spec.title for case in cases)
            found.append(f"{_named(len(cases), 'case')} {outcome}: {listed}")
    compared = len(comparison.of(*COMPARED))
    undecided = len(comparison.of(Outcome.UNDECIDED, Outcome.SUSPECTED))
    if undecided > max_undecided * compared:
        found.append(
            f"{undecided} of {compared} compared cases undecided or suspected, more than "
            f"{100 * max_undecided:g} %{to_decide(comparison, '; ')}"
        )
    return found


def to_decide(comparison: Comparison, before: str = "") -> str:
    """Say how many further seeds would decide how many cases, after ``before``; "" if none do."""
    seeds, decided = comparison.seeds_to_decide()
    if not seeds:
        return ""
    of = len(comparison.of(Outcome.UNDECIDED))
    more = "seed decides" if seeds == 1 else "seeds decide"
    return f"{before}{seeds} more {more} {decided} of the {of} undecided"


def _named(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"{', '.join(listed[:most])}{more}"
