"""How claims are judged by their runs."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from normbench.analysis.claims import judge, stored_claims
from normbench.analysis.statistics import moderated_variances
from normbench.cases.case import Case, Claim, Contrast, MeansCount
from normbench.results import JUDGED, ClaimVerdict, Epoch, RunResult
from normbench.spec import RunSpec, regularizer_name
from normbench.storage.documents import StoredClaim
from normbench.storage.session import read_session

from ..storage.stored import edit_document, judged, store_session

BETTER, WORSE = [0.95, 0.951, 0.952, 0.953], [0.90, 0.901, 0.902, 0.903]


def case(norm: str, l1: float) -> Case:
    regularizer = regularizer_name({"l1": l1})
    spec = RunSpec("digits", "digits", norm, regularizer, recipe="digits")
    return Case("claims-tiny", "standard", spec, target=0.05, seeds=4)


def batch_less_layer(low: float = 0.0, high: float = math.inf) -> Claim:
    """Return a claim of two contrasts, without and with L1, that is expected to hold."""
    contrasts = [
        Contrast(case("batch", l1), case("layer", l1), low / 100, high / 100) for l1 in (0.0, 0.001)
    ]
    return Claim(
        name="batch-beats-layer",
        statement="Batch is better than layer normalization.",
        source="hearsay",
        tier="standard",
        expected=(ClaimVerdict.HOLDS,),
        seeds=4,
        contrasts=tuple(contrasts),
    )


def runs(claim: Claim, **by_norm: Sequence[float]) -> dict[str, RunResult]:
    """Return runs of the claim's cases with the given test accuracies of each norm."""
    found = {}
    for claimed in claim.cases:
        for spec, accuracy in zip(claimed.specs, by_norm[claimed.spec.norm], strict=True):
            epoch = Epoch(1, 0.1, 1.0, 0.9, 1.0, accuracy, 1.0, 1.0)
            found[spec.key] = RunResult(spec, "ok", epochs=(epoch,))
    return found


@pytest.mark.parametrize(
    ("batch", "layer", "verdict"),
    [
        (BETTER, WORSE, "holds"),
        (WORSE, BETTER, "refuted"),
        ([0.90, 0.91, 0.92, 0.93], [0.90, 0.91, 0.92, 0.935], "undecided"),
    ],
)
def test_a_claim_of_better_is_judged_by_its_difference(
    batch: list[float], layer: list[float], verdict: str
) -> None:
    claim = batch_less_layer()
    result = judge(claim, runs(claim, batch=batch, layer=layer), {})
    assert result.verdict == verdict
    assert result.unexpected == (verdict != "holds")
    estimate = result.evidence[0].estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(np.mean(batch) - np.mean(layer))


@pytest.mark.parametrize(
    ("margin", "verdict"), [(4.5, "holds"), (5.0, "undecided"), (5.5, "refuted")]
)
def test_the_margin_is_what_must_be_exceeded(margin: float, verdict: str) -> None:
    claim = batch_less_layer(low=margin)
    assert judge(claim, runs(claim, batch=BETTER, layer=WORSE), {}).verdict == verdict


@pytest.mark.parametrize(
    ("batch", "layer", "verdict"),
    [
        ([0.9, 0.901, 0.902, 0.903], [0.9, 0.901, 0.902, 0.903], "holds"),
        ([0.9, 0.92, 0.94, 0.96], [0.9, 0.92, 0.94, 0.96], "undecided"),
        ([0.9, 0.901, 0.902, 0.903], [0.8, 0.801, 0.802, 0.8], "refuted"),
        ([0.8, 0.801, 0.802, 0.8], [0.9, 0.901, 0.902, 0.9], "refuted"),
    ],
)
def test_a_band_holds_where_the_difference_is_inside_and_not_where_it_is_unknown(
    batch: list[float], layer: list[float], verdict: str
) -> None:
    claim = batch_less_layer(low=-0.5, high=0.5)
    assert judge(claim, runs(claim, batch=batch, layer=layer), {}).verdict == verdict


def test_one_contrast_refutes_a_claim_and_all_of_them_make_it_hold() -> None:
    claim = batch_less_layer()
    better_without = runs(claim, batch=BETTER, layer=WORSE)
    worse_with = runs(claim, batch=WORSE, layer=BETTER)
    mixed = {k: worse_with[k] if run.spec.strengths else run for k, run in better_without.items()}
    result = judge(claim, mixed, {})
    assert [part.verdict for part in result.evidence] == ["holds", "refuted"]
    assert result.verdict == "refuted"


def test_a_claim_without_all_of_its_runs_is_not_judged() -> None:
    claim = batch_less_layer()
    found = runs(claim, batch=[0.9] * 4, layer=[0.8] * 4)
    key, run = next(iter(found.items()))
    diverged = dataclasses.replace(run, status="diverged", epochs=())
    result = judge(claim, {**found, key: diverged}, {})
    assert result.verdict == "not judged"
    assert result.unexpected
    assert result.reason == "digits batch-none-b64, seed 0: diverged"
    assert judge(claim, {}, {}).reason == "digits batch-none-b64, seed 0: was not run"


def test_where_every_verdict_is_expected_only_the_lack_of_one_is_not() -> None:
    claim = dataclasses.replace(batch_less_layer(), expected=JUDGED)
    result = judge(claim, runs(claim, batch=WORSE, layer=BETTER), {})
    assert result.verdict == "refuted"
    assert not result.unexpected
    assert judge(claim, {}, {}).unexpected


def test_wrong_verdicts_are_as_rare_as_the_level_says() -> None:
    """Of claims that are just not so, each of one contrast, at most 1 in 100 comes out to hold."""
    both = batch_less_layer()
    claim = dataclasses.replace(both, contrasts=both.contrasts[:1])
    random = np.random.default_rng(0)
    count, verdicts = 1500, []
    for _ in range(count):
        # the spreads differ twofold, as those of different norms may
        batch, layer = random.normal(0.9, 0.002, 4), random.normal(0.9, 0.001, 4)
        found = runs(claim, batch=batch.tolist(), layer=layer.tolist())
        verdicts.append(judge(claim, found, {}).verdict)
    standard_error = math.sqrt(0.01 * 0.99 / count)
    for verdict in (ClaimVerdict.HOLDS, ClaimVerdict.REFUTED):
        assert verdicts.count(verdict) / count < 0.01 + 2 * standard_error
    assert verdicts.count(ClaimVerdict.UNDECIDED) > 0.9 * count


@pytest.mark.parametrize(
    ("p", "better", "worse"),
    [
        (0.0045, ClaimVerdict.HOLDS, ClaimVerdict.REFUTED),
        # each contrast holds at the level, and refutes at its share of it
        (0.0055, ClaimVerdict.HOLDS, ClaimVerdict.UNDECIDED),
        (0.0095, ClaimVerdict.HOLDS, ClaimVerdict.UNDECIDED),
        (0.0105, ClaimVerdict.UNDECIDED, ClaimVerdict.UNDECIDED),
    ],
)
def test_two_contrasts_hold_at_one_in_a_hundred_and_refute_at_half_of_that(
    p: float, better: ClaimVerdict, worse: ClaimVerdict
) -> None:
    # four samples of equal spread have twelve degrees of freedom: three squares of 5/3 a million
    usual = [0.900, 0.901, 0.902, 0.903]
    by = float(stats.t.isf(p, 12)) * math.sqrt(5 / 3 * 1e-6 * 2 / 4)
    other = [accuracy + by for accuracy in usual]
    claim = batch_less_layer()
    assert judge(claim, runs(claim, batch=other, layer=usual), {}).verdict is better
    assert judge(claim, runs(claim, batch=usual, layer=other), {}).verdict is worse


def test_a_difference_has_the_variances_of_both_sides() -> None:
    batch, layer = [0.90, 0.92, 0.94, 0.96], [0.9, 0.9001, 0.9002, 0.9003]
    claim = batch_less_layer()
    evidence = judge(claim, runs(claim, batch=batch, layer=layer), {}).evidence[0]
    assert (evidence.subject, evidence.says) == (claim.contrasts[0].subject, "more than 0")
    # what all four samples tell of each, of fractions of 449 images
    known = moderated_variances(
        {"batch": batch, "layer": layer, "batch-l1": batch, "layer-l1": layer}, 1 / 449
    )
    assert known["batch"].value > 10 * known["layer"].value
    assert evidence.estimate is not None
    assert evidence.estimate.standard_error == pytest.approx(
        math.sqrt((known["batch"].value + known["layer"].value) / 4)
    )


@pytest.mark.parametrize(
    ("claimed", "verdict"), [(8, ClaimVerdict.HOLDS), (9, ClaimVerdict.REFUTED)]
)
def test_a_count_holds_or_is_refuted_by_what_was_found(claimed: int, verdict: ClaimVerdict) -> None:
    count = MeansCount("batch", images=3, channels=8, means=claimed)
    claim = Claim("means", "So many means.", "hearsay", "smoke", JUDGED, counts=(count,))
    result = judge(claim, {}, {count: 8})
    assert (result.verdict, result.evidence[0].found) == (verdict, "8 means")
    assert result.claim is claim
    assert result.evidence[0].subject == "batch, 3 images x 8 channels"
    assert result.evidence[0].says == f"{claimed} means"
    unknown = judge(claim, {}, {})
    assert unknown.verdict == ClaimVerdict.NOT_JUDGED
    assert unknown.evidence[0].found == ""


def test_stored_claims_are_judged_anew_where_a_session_kept_what_they_stand_on(
    tmp_path: Path,
) -> None:
    claim = batch_less_layer()
    results = [*runs(claim, batch=BETTER, layer=WORSE).values()]
    session = store_session(tmp_path, judged(claim.cases, results), results, claims=[claim])
    count = MeansCount("batch", images=3, channels=8, means=8)
    counted = Claim("means", "So many means.", "hearsay", "smoke", JUDGED, counts=(count,))
    bare = Claim("bare", "No more is known.", "hearsay", "smoke", JUDGED)
    refuted = ClaimVerdict.REFUTED
    stored = [
        StoredClaim.of(claim, refuted),
        StoredClaim.of(counted, refuted, {count: 8}),
        StoredClaim.of(bare, refuted),
    ]
    edit_document(session.folder, claims=[one.model_dump(mode="json") for one in stored])
    assert [
        (result.claim.name, result.verdict)
        for result in stored_claims(read_session(session.folder))
    ] == [
        (claim.name, ClaimVerdict.HOLDS),
        ("means", ClaimVerdict.HOLDS),
        ("bare", ClaimVerdict.REFUTED),
    ]
