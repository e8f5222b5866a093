"""A stored session, or a comparison, as JSON for other programs.

Accuracies, and differences of them, are fractions in normbench's own documents. The entries for
github-action-benchmark, which a person sees as charts, are in percent.
"""

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from normbench.analysis.claims import ClaimResult, stored_claims
from normbench.analysis.comparison import CaseComparison, Comparison
from normbench.analysis.statistics import Estimate, Variance
from normbench.analysis.traces import TraceCounts
from normbench.analysis.verdicts import (
    NOT_FAILED,
    replay_lines,
    shortcomings,
    verdict_counts,
)
from normbench.check.properties import Checked
from normbench.check.trace_record import Trace
from normbench.results import Runs
from normbench.storage.baseline import Baseline, BaselineCase
from normbench.storage.documents import StoredCase
from normbench.storage.session import StoredSession

# Of session_document. Fields may be added; none changes its meaning without another number.
SCHEMA = 1

# What is averaged over a case's runs that ended well.
FIGURES = (
    *("best_test_accuracy", "train_accuracy", "test_loss", "train_loss"),
    *("train_seconds", "test_seconds", "cpu_seconds"),
)


def session_document(session: StoredSession) -> dict[str, Any]:
    """Return all that a session came to: its cases, claims, checks, traces and its comparison."""
    document = session.document
    comparison = _comparison(session)
    claims = stored_claims(session)
    return {
        "schema": SCHEMA,
        **document.model_dump(
            mode="json",
            include={
                *("session", "status", "started", "ended", "seconds", "resumed", "workers"),
                *("planted", "environment", "options"),
            },
        ),
        "folder": str(session.folder),
        "passed": has_passed(session),
        "shortcomings": shortcomings(session),
        "replay": replay_lines(session),
        "counts": _counts(session, comparison, claims),
        "cases": _cases(session, comparison),
        "claims": [_claim(result) for result in claims],
        "checks": [_check(checked) for checked in session.checks],
        "traces": [_trace(trace) for trace in session.traces],
        "comparison": None if comparison is None else _compared(comparison),
    }


def has_passed(session: StoredSession) -> bool:
    """Tell whether a finished session has nothing that failed.

    Tests of the user's own, which the session knows nothing of, may have failed all the same.
    """
    return (
        session.document.status == "finished"
        and all(case.verdict in NOT_FAILED for case in session.judged_cases)
        and not any(result.unexpected for result in stored_claims(session))
        and not any(checked.broken for checked in session.checks)
        and not any(trace.broken for trace in session.traces)
        and not shortcomings(session)
    )


def _comparison(session: StoredSession) -> Comparison | None:
    stored = session.document.comparison
    return None if stored is None else Comparison.of_stored(stored)


def _counts(
    session: StoredSession, comparison: Comparison | None, claims: Iterable[ClaimResult]
) -> dict[str, dict[str, int]]:
    def found(parts: Sequence[Checked | Trace]) -> dict[str, int]:
        return {"all": len(parts), "broken": sum(bool(part.broken) for part in parts)}

    return {
        "cases": {str(v): n for v, n in verdict_counts(session.judged_cases).items()},
        "outcomes": {str(o): n for o, n in comparison.counts.items()} if comparison else {},
        "claims": dict(Counter(str(result.verdict) for result in claims)),
        "checks": found(session.checks),
        "traces": found(session.traces),
    }


def _cases(session: StoredSession, comparison: Comparison | None) -> list[dict[str, Any]]:
    beside = comparison.by_configuration if comparison else {}
    return [
        {
            "id": stored.case.id,
            **stored.model_dump(mode="json", exclude={"runs", "margin_of_error"}),
            "n": stored.runs,
            "margin_of_error": stored.margin_of_error,
            "taken_from": sorted({r.replayed for r in session.runs(stored.case) if r.replayed}),
            **_figures(session.runs(stored.case).finished),
            "beside_baseline": _beside(beside.get(stored.spec.with_seed(0))),
        }
        for stored in session.document.cases
    ]


def _figures(runs: Runs) -> dict[str, float | None]:
    """Return the means of the runs' figures; None where there is no run."""
    return {name: runs.mean(name) if len(runs) else None for name in FIGURES}


def _beside(case: CaseComparison | None) -> dict[str, Any] | None:
    if case is None:
        return None
    return {
        "outcome": str(case.outcome),
        **_difference(case),
        "adjusted_p": case.adjusted_p,
        "minimum_effect": case.minimum_effect,
        "reason": case.reason,
    }


def _difference(case: CaseComparison) -> dict[str, float | None]:
    """Return now less before, and half of its 95 % interval; None where they are not known."""
    known = bool(case.before and case.now)
    return {
        "difference": case.difference.value if known else None,
        "margin_of_error": (
            case.difference.margin_of_error(0.025) if known and case.variance.known else None
        ),
    }


def _claim(result: ClaimResult) -> dict[str, Any]:
    claim = result.claim
    return {
        "name": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "verdict": str(result.verdict),
        "expected": [str(verdict) for verdict in claim.expected],
        "unexpected": result.unexpected,
        "seeds": claim.seeds,
        "reason": result.reason,
        "evidence": [
            {
                "subject": part.subject,
                "says": part.says,
                "verdict": str(part.verdict),
                "difference": part.estimate.value if part.estimate else None,
                "margin_of_error": (
                    part.estimate.margin_of_error(0.025) if part.estimate else None
                ),
                "found": part.found,
            }
            for part in result.evidence
        ],
    }


def _check(checked: Checked) -> dict[str, Any]:
    return {
        "kind": checked.kind,
        "subject": checked.subject,
        "counts": checked.counts,
        "broken": checked.broken,
        "seconds": checked.seconds,
    }


def _trace(trace: Trace) -> dict[str, Any]:
    """Return what a trace has found, without its digests and norms."""
    return {
        "name": trace.name,
        "broken": list(trace.broken),
        "beside": list(trace.beside),
        "equal_to": list(trace.equal_to),
        "share": trace.share,
        "where": trace.where,
        "seconds": trace.seconds,
    }


def _compared(comparison: Comparison) -> dict[str, Any]:
    """Return what session.json keeps of a comparison, with counts, and each case's difference."""
    stored = comparison.to_stored().model_dump(mode="json")
    for row, case in zip(stored["cases"], comparison.cases, strict=True):
        row["case"] = case.spec.title
        row.update(_difference(case))
    seeds, decided = comparison.seeds_to_decide()
    return {
        "counts": {str(outcome): number for outcome, number in comparison.counts.items()},
        "to_decide": {"seeds": seeds, "cases": decided} if seeds else None,
        **stored,
    }


def comparison_document(
    comparison: Comparison, now: Baseline, traces: TraceCounts
) -> dict[str, Any]:
    """Return a comparison with the name of what was compared, and how its traces stand."""
    return {
        "now": now.name,
        "planted": now.planted,
        **_compared(comparison),
        "traces": dataclasses.asdict(traces),
    }


# An entry of github-action-benchmark: name, unit and value, and the texts range and extra.
Entry = dict[str, Any]


def accuracy_entries(session: StoredSession) -> list[Entry]:
    """Return the mean test accuracy of each case that has one, for ``customBiggerIsBetter``.

    Source: the README of benchmark-action/github-action-benchmark, and its src/extract.ts.
    """
    comparison = _comparison(session)
    beside = comparison.by_configuration if comparison else {}
    return [
        _accuracy_entry(
            stored.case.id,
            stored.test_accuracy,
            stored.margin_of_error,
            f"{stored.verdict}: {_target_text(stored)}, n = {stored.runs}",
            *_beside_line(beside.get(stored.spec.with_seed(0))),
            *_ground(session),
        )
        for stored in session.judged_cases
        if stored.test_accuracy is not None
    ]


def seconds_entries(session: StoredSession) -> list[Entry]:
    """Return the mean seconds of a run of each case, evaluation included.

    They are for ``customSmallerIsBetter``. Rows that were taken from an earlier session tell of
    none.
    """
    seconds = {
        stored.case.id: [
            run.train_seconds + run.test_seconds
            for run in session.runs(stored.case).finished
            if not run.replayed
        ]
        for stored in session.judged_cases
    }
    return [
        _seconds_entry(case, found, *_ground(session)) for case, found in seconds.items() if found
    ]


def compared_accuracy_entries(comparison: Comparison, now: Baseline, _: TraceCounts) -> list[Entry]:
    """Return accuracy_entries of what was compared; cases have the titles that baselines have."""
    beside = comparison.by_configuration if comparison else {}
    return [
        _accuracy_entry(
            case.spec.title,
            statistics.fmean(case.accuracies),
            _margin(case, beside[case.spec].variance),
            f"n = {len(case.accuracies)}",
            *_beside_line(beside[case.spec]),
        )
        for case in {**now.cases, **now.unchanged}.values()
        if case.accuracies
    ]


def compared_seconds_entries(_: Comparison, now: Baseline, __: TraceCounts) -> list[Entry]:
    """Return seconds_entries of what was compared."""
    seconds = {
        case.spec.title: [r.train_seconds + r.test_seconds for r in case.runs if r.status == "ok"]
        for case in now.cases.values()
    }
    return [_seconds_entry(title, found) for title, found in seconds.items() if found]


def _margin(case: BaselineCase, variance: Variance) -> float | None:
    if not variance.known:
        return None
    return Estimate.mean(case.accuracies, variance).margin_of_error(0.025)


def _accuracy_entry(name: str, accuracy: float, margin: float | None, *extra: str) -> Entry:
    spread = {} if margin is None else {"range": f"± {100 * margin:.2f}"}
    value = round(100 * accuracy, 4)
    return {"name": name, "unit": "%", "value": value, **spread, "extra": "\n".join(extra)}


def _seconds_entry(name: str, seconds: Sequence[float], *extra: str) -> Entry:
    spread = {"range": f"± {statistics.stdev(seconds):.2f}"} if len(seconds) > 1 else {}
    value = round(statistics.fmean(seconds), 4)
    told = "\n".join((f"n = {len(seconds)}", *extra))
    return {"name": name, "unit": "s", "value": value, **spread, "extra": told}


def _beside_line(case: CaseComparison | None) -> list[str]:
    """Say in a line how a case stands beside the baseline; nothing without one."""
    if case is None:
        return []
    found = _difference(case)
    if found["difference"] is None:
        return [f"beside the baseline: {case.outcome}"]
    margin = found["margin_of_error"]
    reach = "" if margin is None else f" ± {100 * margin:.2f}"
    points = f"{100 * found['difference']:+.2f}{reach} points"
    return [f"beside the baseline: {case.outcome}, {points}"]


def _ground(session: StoredSession) -> list[str]:
    """Say in a line what the figures were measured with."""
    environment = session.document.environment
    return [f"torch {environment.get('torch')}, {environment.get('processor')}, {session.name}"]


# What is written of a session, and printed of a comparison, by the names of the formats.
SESSION_FORMATS: dict[str, Callable[[StoredSession], Any]] = {
    "normbench": session_document,
    "github-accuracy": accuracy_entries,
    "github-seconds": seconds_entries,
}
COMPARISON_FORMATS: dict[str, Callable[[Comparison, Baseline, TraceCounts], Any]] = {
    "normbench": comparison_document,
    "github-accuracy": compared_accuracy_entries,
    "github-seconds": compared_seconds_entries,
}


def to_json(document: Any) -> str:
    """Return a document as the text of a file; raises ValueError for what JSON does not have."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _target_text(stored: StoredCase) -> str:
    return "no target" if stored.target is None else f"target {100 * stored.target:.2f} %"
