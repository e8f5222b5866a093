"""What the runs say of each claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normbench.analysis.spread import variances
from normbench.analysis.statistics import Estimate, Variance
from normbench.analysis.thresholds import CLAIM_LEVEL
from normbench.cases.case import Claim, Contrast, MeansCount
from normbench.results import ClaimVerdict, RunResult
from normbench.spec import RunSpec
from normbench.storage.session import StoredSession


@dataclass(frozen=True)
class Evidence:
    """What was found of one contrast or count: ``estimate`` of a difference, or a text."""

    subject: str
    says: str
    verdict: ClaimVerdict
    estimate: Estimate | None = None
    found: str = ""


@dataclass(frozen=True)
class ClaimResult:
    """A claim's verdict, with the evidence, and the reason where there is no verdict."""

    claim: Claim
    verdict: ClaimVerdict
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""

    @property
    def unexpected(self) -> bool:
        return self.verdict not in self.claim.expected


def judge(
    claim: Claim, results: Mapping[str, RunResult], found: Mapping[MeansCount, int]
) -> ClaimResult:
    """Return what the runs say of the claim; ``results`` are a session's, by their specs' keys.

    ``found`` are the numbers of means that norms were found to compute, by what is claimed.

    A claim holds where each of its contrasts does, each at the level (the intersection-union
    test: Berger, Multiparameter Hypothesis Testing and Acceptance Sampling, 1982), one of
    ``within`` by two one-sided tests (Schuirmann, 1987). It is refuted where one contrast is, at
    its share of the level (Bonferroni), and undecided in between. The variance is that of the
    claim's own runs, so that the verdict does not depend on what else a session ran.
    """
    if not claim.contrasts:
        counted = [_count_evidence(count, found.get(count)) for count in claim.counts]
        return ClaimResult(claim, _all_of(counted), tuple(counted))
    samples: dict[RunSpec, list[float]] = {}
    for case in claim.cases:
        specs = case.specs[: claim.seeds]
        runs = [results.get(spec.key) for spec in specs]
        for spec, run in zip(specs, runs, strict=True):
            if run is None or run.status != "ok":
                reason = f"{spec}: {run.status if run else 'was not run'}"
                return ClaimResult(claim, ClaimVerdict.NOT_JUDGED, reason=reason)
        samples[case.spec] = [run.test_accuracy for run in runs if run]
    spread = variances(samples)
    evidence = [
        _contrast_evidence(c, samples, spread, len(claim.contrasts)) for c in claim.contrasts
    ]
    return ClaimResult(claim, _all_of(evidence), tuple(evidence))


def _all_of(evidence: Sequence[Evidence]) -> ClaimVerdict:
    verdicts = {part.verdict for part in evidence}
    order = (ClaimVerdict.REFUTED, ClaimVerdict.NOT_JUDGED, ClaimVerdict.UNDECIDED)
    return next((verdict for verdict in order if verdict in verdicts), ClaimVerdict.HOLDS)


def _contrast_evidence(
    contrast: Contrast,
    samples: Mapping[RunSpec, list[float]],
    spread: Mapping[RunSpec, Variance],
    contrasts: int,
) -> Evidence:
    first, second = contrast.first.spec, contrast.second.spec
    estimate = Estimate.difference(samples[first], samples[second], spread[first], spread[second])
    verdict = ClaimVerdict.UNDECIDED
    if max(estimate.p_above(contrast.low), estimate.p_below(contrast.high)) <= CLAIM_LEVEL:
        verdict = ClaimVerdict.HOLDS
    elif (
        min(estimate.p_below(contrast.low), estimate.p_above(contrast.high))
        <= CLAIM_LEVEL / contrasts
    ):
        verdict = ClaimVerdict.REFUTED
    return Evidence(contrast.subject, contrast.says, verdict, estimate)


def _count_evidence(count: MeansCount, found: int | None) -> Evidence:
    verdict = ClaimVerdict.HOLDS if found == count.means else ClaimVerdict.REFUTED
    return Evidence(
        f"{count.norm}, {count.images} images x {count.channels} channels",
        f"{count.means} means",
        ClaimVerdict.NOT_JUDGED if found is None else verdict,
        found="" if found is None else f"{found} means",
    )


def stored_claims(session: StoredSession) -> list[ClaimResult]:
    """Return what a stored session's runs say of the claims that it judged.

    Where it kept no more of a claim than its verdict, as sessions of schema 1, that is repeated.
    """
    results = []
    for claim, stored in session.claims:
        if claim.contrasts or claim.counts:
            results.append(judge(claim, session.results, stored.found))
        else:
            results.append(ClaimResult(claim, stored.verdict or ClaimVerdict.NOT_JUDGED))
    return results
