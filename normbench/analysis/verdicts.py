"""What a case comes to: pytest's outcome of its test, its runs, and the room to its target."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from normbench.analysis.comparison import margin_in_standard_errors
from normbench.analysis.spread import Spread
from normbench.analysis.statistics import Estimate, Variance
from normbench.analysis.thresholds import MARGIN
from normbench.cases.case import Case
from normbench.results import CaseVerdict, RunResult
from normbench.storage.documents import StoredCase

NOT_FAILED = (CaseVerdict.PASSED, CaseVerdict.MARGINAL, CaseVerdict.SKIPPED)


def case_verdict(
    case: Case, outcome: str, runs: Sequence[RunResult], variance: Variance
) -> CaseVerdict:
    """Return the verdict on a case whose test came out as pytest's ``outcome``.

    A case that failed as a run of it came to a bad end is called by that end; one that passed
    with few standard errors of room is marginal.
    """
    ends = [run.status for run in runs if run.status != "ok"]
    if outcome == "failed" and ends:
        return CaseVerdict(ends[0])
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
    baseline: Spread | None,
) -> list[StoredCase]:
    """Return the cases as session.json keeps them; those without an outcome have no verdict.

    ``results`` are the session's runs by their specs' keys. The variance of a case is that of the
    session's ``own`` runs where it is known, else the baseline's.
    """
    stored = []
    for case in cases:
        if case.id not in outcomes:
            stored.append(StoredCase.of(case))
            continue
        variance = own.variance(case.spec)
        if baseline is not None and not variance.known:
            variance = baseline.variance(case.spec)
        runs = [results[spec.key] for spec in case.specs if spec.key in results]
        verdict = case_verdict(case, outcomes[case.id], runs, variance)
        stored.append(StoredCase.of(case, verdict=verdict, **_figures(runs, variance)))
    return stored


def _figures(runs: Sequence[RunResult], variance: Variance) -> dict[str, float | None]:
    accuracies = [run.test_accuracy for run in runs if run.status == "ok"]
    if not accuracies:
        return {"runs": 0}
    mean = Estimate.mean(accuracies, variance)
    margin = mean.margin_of_error(0.025) if variance.known else None
    return {"runs": len(accuracies), "test_accuracy": mean.value, "margin_of_error": margin}


def verdict_counts(cases: Iterable[StoredCase]) -> dict[CaseVerdict, int]:
    """Return how many cases came to each verdict, the most frequent first."""
    return dict(Counter(c.verdict for c in cases if c.verdict is not None).most_common())
