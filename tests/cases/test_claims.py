"""Claims: what a file of them comes to, what is said of a bad one, and how they are judged."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from normbench.analysis.claims import judge
from normbench.cases.case import GridOptions
from normbench.cases.checked_toml import CasesError
from normbench.cases.claims import Contrast, is_claims_file, load_claims
from normbench.check.means import means_computed
from normbench.results import ClaimVerdict, Epoch, RunResult

from ..conftest import tiny_grid

CLAIM = """
schema = 1

[[claim]]
name = "batch-beats-layer"
statement = "Batch is better than layer normalization."
source = "hearsay"
tier = "standard"
grid = "tiny"
seeds = 4
expected = "holds"

[[claim.contrast]]
at = { l1 = [0, 0.001] }
first = { norm = "batch", batch_size = 64 }
second = { norm = "layer", batch_size = 64 }
"""

COUNT = """
schema = 1

[[claim]]
name = "means"
statement = "So many means."
source = "hearsay"
tier = "smoke"
images = 3
channels = 8
means = { batch = 8 }
"""


@pytest.fixture
def load(tmp_path):
    def load_text(text: str, **options):
        file, grid = tmp_path / "claims.toml", tmp_path / "tiny.toml"
        file.write_text(text)
        grid.write_text(tiny_grid())
        return load_claims(file, {"tiny": grid}, GridOptions(**options))

    return load_text


def test_the_projects_own_claims_are_those_that_were_made():
    folder = Path(__file__).parents[2] / "bench" / "cases"
    grids = {file.stem: file for file in folder.glob("*.toml") if not is_claims_file(file)}
    claims = load_claims(folder / "claims.toml", grids, GridOptions())
    assert [claim.name for claim in claims] == [
        "batch-is-best-without-regularizer",
        "layer-chw-is-best",
        "layer-gains-from-l2",
        "strong-l1-costs-far-more",
        "strong-l1-wants-larger-batches",
        "two-groups-are-as-good-as-four",
        "group-is-better-at-small-batches",
        "group-is-stable-over-batch-sizes",
        "layer-is-stable-over-batch-sizes",
        "batch-is-better-at-larger-batches",
        "group-and-layer-stable-up-to-256",
        "batch-is-better-at-256",
        "group-at-small-batches-on-cifar10",
        "group-and-layer-stable-on-cifar10",
        "batch-at-larger-batches-on-cifar10",
        "batch-over-group-over-layer-on-cifar10",
        "more-groups-are-better-on-cifar10",
        "means-computed",
    ]
    assert [contrast.subject for contrast in claims[0].contrasts] == [
        "batch-none-b64 less group:2-none-b64",
        "batch-none-b64 less layer-none-b64",
    ]
    # in the standard tier, whose grids have one run a case, nothing can be judged but the count
    standard = load_claims(folder / "claims.toml", grids, GridOptions(tier="standard"))
    assert [claim.name for claim in standard] == ["means-computed"]


def accuracies(claim, **by_norm) -> dict[str, RunResult]:
    """Return runs of the claim's cases with the given test accuracies of each norm."""
    found = {}
    for case in claim.cases:
        for spec, accuracy in zip(case.specs, by_norm[case.spec.norm], strict=True):
            epoch = Epoch(1, 0.1, 1.0, 0.9, 1.0, accuracy, 1.0, 1.0)
            found[spec.key] = RunResult(spec, "ok", epochs=(epoch,))
    return found


def test_a_contrast_stands_for_each_value_of_its_lists(load):
    (claim,) = load(CLAIM)
    assert [contrast.subject for contrast in claim.contrasts] == [
        "batch-none-b64 less layer-none-b64",
        "batch-l1:0.001-b64 less layer-l1:0.001-b64",
    ]
    assert claim.expected == (ClaimVerdict.HOLDS,)
    assert [case.id for case in claim.cases] == [
        "claims-tiny-batch-none-b64",
        "claims-tiny-layer-none-b64",
        "claims-tiny-batch-l1:0.001-b64",
        "claims-tiny-layer-l1:0.001-b64",
    ]
    assert {case.seeds for case in claim.cases} == {4}


def test_more_seeds_of_the_command_line_are_taken(load):
    assert load(CLAIM, seeds=9)[0].seeds == 9
    assert load(CLAIM, seeds=3)[0].seeds == 4
    # the looks of --bench-seeds auto are those of a case beside a baseline
    assert load(CLAIM, seeds=8, sequential=True)[0].seeds == 4


def test_claims_belong_to_a_tier(load):
    assert load(CLAIM, tier="smoke") == []
    assert len(load(CLAIM, tier="standard")) == 1


def test_claims_that_share_a_case_share_its_runs(load):
    other = CLAIM.replace("schema = 1", "").replace("batch-beats-layer", "again")
    first, second = load(CLAIM + other.replace("seeds = 4", "seeds = 6"))
    assert first.cases == second.cases
    assert {case.seeds for case in first.cases} == {6}
    assert (first.seeds, second.seeds) == (4, 6)


@pytest.mark.parametrize(
    ("batch", "layer", "verdict"),
    [
        ([0.95, 0.951, 0.952, 0.953], [0.90, 0.901, 0.902, 0.903], "holds"),
        ([0.90, 0.901, 0.902, 0.903], [0.95, 0.951, 0.952, 0.953], "refuted"),
        ([0.90, 0.91, 0.92, 0.93], [0.90, 0.91, 0.92, 0.935], "undecided"),
    ],
)
def test_a_claim_of_better_is_judged_by_its_difference(load, batch, layer, verdict):
    (claim,) = load(CLAIM)
    finding = judge(claim, accuracies(claim, batch=batch, layer=layer))
    assert finding.verdict == verdict
    assert finding.unexpected == (verdict != "holds")
    assert finding.evidence[0].estimate.value == pytest.approx(np.mean(batch) - np.mean(layer))


def test_the_margin_is_what_must_be_exceeded(load):
    runs = {"batch": [0.95, 0.951, 0.952, 0.953], "layer": [0.90, 0.901, 0.902, 0.903]}
    for margin, verdict in ((4.5, "holds"), (5.0, "undecided"), (5.5, "refuted")):
        (claim,) = load(f"{CLAIM}more_than = {margin}\n")
        assert judge(claim, accuracies(claim, **runs)).verdict == verdict


def test_a_band_holds_where_the_difference_is_inside_and_not_where_it_is_unknown(load):
    for width, runs, verdict in (
        (0.5, {"batch": [0.9, 0.901, 0.902, 0.903], "layer": [0.9, 0.901, 0.902, 0.903]}, "holds"),
        (0.5, {"batch": [0.9, 0.92, 0.94, 0.96], "layer": [0.9, 0.92, 0.94, 0.96]}, "undecided"),
        (0.5, {"batch": [0.9, 0.901, 0.902, 0.903], "layer": [0.8, 0.801, 0.802, 0.8]}, "refuted"),
        (0.5, {"batch": [0.8, 0.801, 0.802, 0.8], "layer": [0.9, 0.901, 0.902, 0.9]}, "refuted"),
    ):
        (claim,) = load(f"{CLAIM}within = {width}\n")
        assert judge(claim, accuracies(claim, **runs)).verdict == verdict


def test_one_contrast_refutes_a_claim_and_all_of_them_make_it_hold(load):
    (claim,) = load(CLAIM)
    better, worse = [0.95, 0.951, 0.952, 0.953], [0.90, 0.901, 0.902, 0.903]
    runs = accuracies(claim, batch=better, layer=worse)
    swapped = accuracies(claim, batch=worse, layer=better)
    mixed = {key: swapped[key] if run.spec.l1 else run for key, run in runs.items() if run.spec}
    finding = judge(claim, mixed)
    assert [part.verdict for part in finding.evidence] == ["holds", "refuted"]
    assert finding.verdict == "refuted"


def test_a_claim_without_all_of_its_runs_is_not_judged(load):
    (claim,) = load(CLAIM)
    runs = accuracies(claim, batch=[0.9] * 4, layer=[0.8] * 4)
    key, run = next(iter(runs.items()))
    finding = judge(claim, {**runs, key: dataclasses.replace(run, status="diverged", epochs=())})
    assert finding.verdict == "not judged"
    assert finding.unexpected
    assert finding.reason == "digits batch-none-b64, seed 0: diverged"
    assert judge(claim, {}).reason == "digits batch-none-b64, seed 0: was not run"


def test_a_claim_close_to_its_margin_may_have_two_verdicts_on_record(load):
    (claim,) = load(CLAIM.replace('"holds"', '["undecided", "holds"]'))
    assert claim.expected == (ClaimVerdict.UNDECIDED, ClaimVerdict.HOLDS)


def test_where_nothing_is_on_record_every_verdict_is_expected(load):
    (claim,) = load(CLAIM.replace('expected = "holds"\n', ""))
    runs = accuracies(claim, batch=[0.8, 0.801, 0.802, 0.803], layer=[0.9, 0.901, 0.902, 0.903])
    assert judge(claim, runs).verdict == "refuted"
    assert not judge(claim, runs).unexpected
    assert judge(claim, {}).unexpected


def test_wrong_verdicts_are_as_rare_as_the_level_says(load):
    """Of claims that are just not so, each of one contrast, at most 1 in 100 comes out to hold."""
    (claim,) = load(CLAIM)
    claim = dataclasses.replace(claim, contrasts=claim.contrasts[:1])
    random = np.random.default_rng(0)
    count, verdicts = 1500, []
    for _ in range(count):
        # the spreads differ twofold, as those of different norms may
        runs = accuracies(
            claim, batch=random.normal(0.9, 0.002, 4), layer=random.normal(0.9, 0.001, 4)
        )
        verdicts.append(judge(claim, runs).verdict)
    standard_error = math.sqrt(0.01 * 0.99 / count)
    for verdict in ("holds", "refuted"):
        assert verdicts.count(verdict) / count < 0.01 + 2 * standard_error
    assert verdicts.count("undecided") > 0.9 * count


@pytest.mark.parametrize(
    ("norm", "means"), [("batch", 8), ("layer", 3), ("group:4", 12), ("instance", 24)]
)
def test_means_are_counted_by_what_a_layer_does(norm, means):
    assert means_computed(norm, images=3, channels=8) == means


def test_a_count_holds_or_is_refuted(load):
    (claim,) = load(COUNT)
    assert judge(claim, {}).verdict == "holds"
    (wrong,) = load(COUNT.replace("batch = 8", "batch = 9"))
    finding = judge(wrong, {})
    assert (finding.verdict, finding.evidence[0].found) == ("refuted", "8 means")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 4", "seeds = 1", r"\(batch-beats-layer\): seeds = 1; .* at least 2"),
        ("seeds = 4", "", r"\(batch-beats-layer\): the key seeds is missing"),
        ('"tiny"', '"mnist"', r"grid = 'mnist'; expected one of 'tiny'"),
        ('"holds"', '"true"', r"expected = 'true'; expected one of 'holds', 'refuted'"),
        ('"holds"', '["holds", 1]', r"expected = 1; expected one of 'holds', .* or a list of them"),
        ('"holds"', "[]", r"expected = \[\]; expected one of 'holds'"),
        ('"layer", b', '"group:2", b', r"'tiny' has no case with norm = 'group:2', l1 = 0"),
        (', batch_size = 64 }\nsec', " }\nsec", r"contrast\]\] 1: batch_size is missing on one"),
        ("first =", "frist =", r"contrast\]\] 1: unknown key frist; known are at, first"),
        ("{ norm = \"batch\",", "{ nrom = 1,", r"first: unknown key nrom"),
        ('"hearsay"', "3", r"source = 3; expected a text in quotes"),
        ("first = {", "within = 1\nmore_than = 1\nfirst = {", r"more_than or within, not both"),
        ("first = { norm", "within = -1\nfirst = { norm", r"within = -1; .* at least 0"),
        ('"standard"', '"nightly"', r"tier = 'nightly'; expected one of 'smoke'"),
        ("schema = 1", "schema = 2", r"schema = 2"),
        ("schema = 1", "schema = 1\nepochs = 3", r"unknown key epochs"),
    ],
)  # fmt: skip
def test_a_bad_claim_is_named_with_what_was_expected(load, old, new, message):
    assert old in CLAIM
    with pytest.raises(CasesError, match=message):
        load(CLAIM.replace(old, new, 1))


def test_two_claims_of_one_name_are_refused(load):
    with pytest.raises(CasesError, match=r"two claims are called 'batch-beats-layer'; rename one"):
        load(CLAIM + CLAIM.replace("schema = 1", ""))


def test_a_count_of_a_norm_that_does_not_fit_is_refused(load):
    with pytest.raises(CasesError, match=r"group:3 does not fit layer 'probe': its 8 channels"):
        load(COUNT.replace("batch = 8", '"group:3" = 9'))
    with pytest.raises(CasesError, match=r"unknown key grid"):
        load(COUNT + 'grid = "tiny"\n')


def test_a_contrast_says_what_it_claims(load):
    case = load(CLAIM)[0].cases[0]
    assert Contrast(case, case, 0.0).says == "more than 0"
    assert Contrast(case, case, -0.001).says == "more than -0.1"
    assert Contrast(case, case, -0.003, 0.003).says == "within ±0.3"
