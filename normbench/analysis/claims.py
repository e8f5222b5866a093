"""What the runs say of each claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normbench.analysis.spread import variances
from normbench.analysis.statistics import Estimate, Variance
from normbench.analysis.thresholds import CLAIM_LEVEL
from normbench.cases.claims import Claim, Contrast, MeansCount
from normbench.check.means import means_computed
from normbench.results import ClaimVerdict, RunResult
from normbench.spec import RunSpec


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


def judge(claim: Claim, results: Mapping[str, RunResult]) -> ClaimResult:
    """Return what the runs say of the claim; ``results`` are a session's, by their specs' keys.

    A claim holds where each of its contrasts does, each at the level (the intersection-union
    test: Berger, Multiparameter Hypothesis Testing and Acceptance Sampling, 1982), one of
    ``within`` by two one-sided tests (Schuirmann, 1987). It is refuted where one contrast is, at
    its share of the level (Bonferroni), and undecided in between. The variance is that of the
    claim's own runs, so that the verdict does not depend on what else a session ran.
    """
    if not claim.contrasts:
        counted = [_count_evidence(count) for count in claim.counts]
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
    order = (ClaimVerdict.REFUTED, ClaimVerdict.UNDECIDED, ClaimVerdict.HOLDS)
    return next(verdict for verdict in order if verdict in verdicts)


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


def _count_evidence(count: MeansCount) -> Evidence:
    found = means_computed(count.norm, count.images, count.channels)
    return Evidence(
        f"{count.norm}, {count.images} images x {count.channels} channels",
        f"{count.means} means",
        ClaimVerdict.HOLDS if found == count.means else ClaimVerdict.REFUTED,
        found=f"{found} means",
    )
