"""Claims files: what they come to, and what is said of a bad one."""

from pathlib import Path
from typing import Protocol

import pytest

from normbench.cases.case import Claim, Contrast, GridOptions, MeansCount
from normbench.cases.claims import is_claims_file, load_claims
from normbench.cases.errors import CasesError
from normbench.results import JUDGED, ClaimVerdict

from ..conftest import tiny_grid

EVERYTHING = GridOptions()

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


class Load(Protocol):
    """Loads the claims of a text, which may name the grid ``tiny``."""

    def __call__(self, text: str, options: GridOptions = EVERYTHING) -> list[Claim]: ...


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, options: GridOptions = EVERYTHING) -> list[Claim]:
        file, grid = tmp_path / "claims.toml", tmp_path / "tiny.toml"
        file.write_text(text)
        grid.write_text(tiny_grid())
        return load_claims(file, {"tiny": grid}, options)

    return load_text


def test_the_projects_own_claims_are_those_that_were_made() -> None:
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


def test_a_contrast_stands_for_each_value_of_its_lists(load: Load) -> None:
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


def test_more_seeds_of_the_command_line_are_taken(load: Load) -> None:
    assert load(CLAIM, GridOptions(seeds=9))[0].seeds == 9
    assert load(CLAIM, GridOptions(seeds=3))[0].seeds == 4
    # the looks of --bench-seeds auto are those of a case beside a baseline
    assert load(CLAIM, GridOptions(seeds=8, sequential=True))[0].seeds == 4


def test_the_seeds_of_a_claim_are_the_least_of_its_cases(load: Load) -> None:
    cases = load(CLAIM, GridOptions(seeds=8, sequential=True))[0].cases
    assert {(case.least, case.seeds) for case in cases} == {(4, 4)}


def test_a_claim_may_be_on_a_norm_of_the_command_line(load: Load) -> None:
    text = CLAIM.replace('"layer"', '"group:2"')
    with pytest.raises(CasesError, match=r"'tiny' has no case with norm = 'group:2'"):
        load(text)
    (claim,) = load(text, GridOptions(norms=("group:2",)))
    assert claim.contrasts[0].subject == "batch-none-b64 less group:2-none-b64"


def test_claims_belong_to_a_tier(load: Load) -> None:
    assert load(CLAIM, GridOptions(tier="smoke")) == []
    assert len(load(CLAIM, GridOptions(tier="standard"))) == 1


def test_claims_that_share_a_case_share_its_runs(load: Load) -> None:
    other = CLAIM.replace("schema = 1", "").replace("batch-beats-layer", "again")
    first, second = load(CLAIM + other.replace("seeds = 4", "seeds = 6"))
    assert first.cases == second.cases
    assert {case.seeds for case in first.cases} == {6}
    assert (first.seeds, second.seeds) == (4, 6)


def test_a_claim_close_to_its_margin_may_have_two_verdicts_on_record(load: Load) -> None:
    (claim,) = load(CLAIM.replace('"holds"', '["undecided", "holds"]'))
    assert claim.expected == (ClaimVerdict.UNDECIDED, ClaimVerdict.HOLDS)


def test_where_nothing_is_on_record_every_verdict_is_expected(load: Load) -> None:
    (claim,) = load(CLAIM.replace('expected = "holds"\n', ""))
    assert claim.expected == JUDGED


def test_a_count_says_how_many_means_each_norm_computes(load: Load) -> None:
    (claim,) = load(COUNT.replace("batch = 8", 'batch = 8, "group:4" = 12'))
    assert claim.counts == (MeansCount("batch", 3, 8, 8), MeansCount("group:4", 3, 8, 12))
    assert claim.cases == []


def test_contrasts_come_in_the_order_of_the_files_keys(load: Load) -> None:
    text = CLAIM.replace("at = {", 'at = { batch_size = 64, norm = ["layer", "batch"],')
    text = text.replace('{ norm = "batch", batch_size = 64 }', "{}")
    text = text.replace('{ norm = "layer", batch_size = 64 }', "{ l1 = 0.001 }")
    assert [contrast.first.spec.label for contrast in load(text)[0].contrasts] == [
        "layer-none-b64",
        "layer-l1:0.001-b64",
        "batch-none-b64",
        "batch-l1:0.001-b64",
    ]


def test_a_claim_may_compare_any_regularizers(tmp_path: Path) -> None:
    file, grid = tmp_path / "claims.toml", tmp_path / "tiny.toml"
    grid.write_text(tiny_grid().replace("{ l1 = 0.001 }", "{ decoupled = 0.1, l2 = 0.01 }"))
    text = CLAIM.replace("at = { l1 = [0, 0.001] }", 'at = { norm = "batch", batch_size = 64 }')
    text = text.replace(
        '{ norm = "batch", batch_size = 64 }\nsec', "{ l2 = 0.01, decoupled = 0.1 }\nsec"
    )
    file.write_text(text.replace('{ norm = "layer", batch_size = 64 }', "{}"))
    (claim,) = load_claims(file, {"tiny": grid}, EVERYTHING)
    (contrast,) = claim.contrasts
    assert contrast.subject == "batch-decoupled:0.1+l2:0.01-b64 less batch-none-b64"


@pytest.mark.parametrize(
    ("addition", "bounds"),
    [
        ("", (0, "inf")),
        ("more_than = 1", (0.01, "inf")),
        ("more_than = -0.5", (-0.005, "inf")),
        ("within = 2.5", (-0.025, 0.025)),
    ],
)
def test_a_contrasts_bounds_are_points_in_the_file_and_fractions_in_code(
    load: Load, addition: str, bounds: tuple[float, float | str]
) -> None:
    (claim,) = load(f"{CLAIM}{addition}\n")
    for contrast in claim.contrasts:
        assert (contrast.low, contrast.high) == pytest.approx(tuple(map(float, bounds)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 4", "seeds = 1", r"\(batch-beats-layer\): seeds = 1; .* at least 2"),
        ("seeds = 4", "", r"\(batch-beats-layer\): the key seeds is missing; add it, such"),
        ('"tiny"', '"mnist"', r"grid = 'mnist'; expected one of 'tiny'"),
        ('"tiny"', "[]", r"grid = \[\]; expected a text in quotes"),
        ('"holds"', '"true"', r"expected = 'true'; expected one of 'holds', 'refuted'"),
        ('"holds"', '["holds", 1]', r"expected = 1; expected one of 'holds', .* or a list of them"),
        ('"holds"', "[]", r"expected = \[\]; expected one of 'holds'"),
        ("[0, 0.001]", "[0, 0.001, 0.0]", r"at: l1: 0 stands in the list twice; leave one out$"),
        (
            "[0, 0.001]",
            "[0, 0.00100000001]",
            r"has no case with norm = 'batch', l1 = 0.00100000001, batch_size = 64",
        ),
        ('"layer", b', '"group:2", b', r"'tiny' has no case with norm = 'group:2', no regularizer"),
        (
            ', batch_size = 64 }\nsec',
            " }\nsec",
            r"contrast\]\] 1: first: batch_size is missing on one side; add it to first, or to at",
        ),
        ("first =", "frist =", r"contrast\]\] 1: unknown key frist; known are at, first"),
        ("{ norm = \"batch\",", "{ nrom = 1,", r"first: unknown key nrom"),
        ("{ l1 = [0, 0.001] }", "3", r"at = 3; expected a table such as { batch_size = 64 }"),
        ("[0, 0.001]", "[]", r"at: l1 = \[\]; expected a number of at least 0, or a list of them"),
        ("[0, 0.001]", "true", r"at: l1 = True; expected a number of at least 0"),
        ('"hearsay"', "3", r"source = 3; expected a text in quotes"),
        ('"hearsay"', '" "', r"source = ' '; expected a text in quotes"),
        ("first = {", "within = 1\nmore_than = 1\nfirst = {", r"more_than or within, not both"),
        ("first = { norm", "within = -1\nfirst = { norm", r"within = -1; .* at least 0"),
        ('"standard"', '"nightly"', r"tier = 'nightly'; expected one of 'smoke'"),
        ("[[claim.contrast]]", "[claim.contrast]", r"expected contrast as \[\[claim.contrast\]\]"),
        ("[[claim]]", "[claim]", r"expected claim as \[\[claim\]\] tables"),
        ("schema = 1", "schema = 2", r"schema = 2; this version reads 1"),
        ("schema = 1", "schema = 1\nepochs = 3", r"unknown key epochs; known are claim, schema"),
    ],
)  # fmt: skip
def test_a_bad_claim_is_named_with_what_was_expected(
    load: Load, old: str, new: str, message: str
) -> None:
    assert old in CLAIM
    with pytest.raises(CasesError, match=message) as caught:
        load(CLAIM.replace(old, new, 1))
    assert "Input" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch = 8", '"group:3" = 9', r"group:3 does not fit layer 'probe': its 8 channels"),
        ("batch = 8", "bach = 9", r"\(means\): means: unknown norm 'bach': expected one of none"),
        ("batch = 8", "batch = 0", r"means: batch = 0; expected a whole number of at least 1"),
        ("{ batch = 8 }", "8", r"means = 8; expected a table such as { batch = 8"),
        ("{ batch = 8 }", "{}", r"means = {}; expected a table of values, at least one"),
        ("channels = 8", "channels = 1", r"channels = 1; expected a whole number of at least 2"),
        ("images = 3", 'images = 3\ngrid = "tiny"', r"unknown key grid; known are channels"),
        ("means =", "maens =", r"unknown key maens; .*; did you mean means\?"),
    ],
)
def test_a_bad_count_is_named_with_what_was_expected(
    load: Load, old: str, new: str, message: str
) -> None:
    assert old in COUNT
    with pytest.raises(CasesError, match=message):
        load(COUNT.replace(old, new, 1))


def test_two_claims_of_one_name_are_refused(load: Load) -> None:
    with pytest.raises(CasesError, match=r"two claims are called 'batch-beats-layer'; rename one"):
        load(CLAIM + CLAIM.replace("schema = 1", ""))


def test_all_that_is_wrong_with_claims_is_told_at_once_as_it_stands_in_the_file(
    load: Load, tmp_path: Path
) -> None:
    bad_claim = (
        CLAIM.replace('"hearsay"', "3").replace("seeds", "sedes").replace("first =", "frist =")
    )
    bad_count = COUNT.replace("schema = 1", "").replace("batch = 8", "batch = 0")
    other = CLAIM.replace("schema = 1", "").replace('"layer", b', '"instance", b')
    with pytest.raises(CasesError, match=r"source = 3") as caught:
        load(bad_claim + bad_count + other)
    file, where = tmp_path / "claims.toml", "(batch-beats-layer)"
    claim_keys = "contrast, expected, grid, name, seeds, source, statement, tier"
    no_case = "the grid 'tiny' has no case with norm = 'instance', {}, batch_size = 64"
    assert str(caught.value).splitlines() == [
        f"{file}: [[claim]] 1 {where}: source = 3; expected a text in quotes",
        f"{file}: [[claim]] 1 {where}: unknown key sedes; known are {claim_keys}; "
        "did you mean seeds?",
        f"{file}: [[claim]] 1 {where}: [[claim.contrast]] 1: unknown key frist; "
        "known are at, first, more_than, second, within; did you mean first?",
        f"{file}: [[claim]] 2 (means): means: batch = 0; expected a whole number of at least 1",
        f"{file}: [[claim]] 3 {where}: name: two claims are called 'batch-beats-layer'; rename one",
        f"{file}: [[claim]] 3 {where}: [[claim.contrast]] 1: {no_case.format('no regularizer')}; "
        "add it to a [[grid]] there",
        f"{file}: [[claim]] 3 {where}: [[claim.contrast]] 1: {no_case.format('l1 = 0.001')}; "
        "add it to a [[grid]] there",
    ]


def test_a_bad_grid_that_a_claim_names_is_told_as_what_it_is(tmp_path: Path) -> None:
    file, grid = tmp_path / "claims.toml", tmp_path / "tiny.toml"
    file.write_text(CLAIM)
    grid.write_text(tiny_grid().replace("epochs = 1", "epochs = 0"))
    with pytest.raises(CasesError, match=r"^\S+tiny.toml: epochs = 0; expected a whole number"):
        load_claims(file, {"tiny": grid}, EVERYTHING)


def test_a_contrast_says_what_it_claims(load: Load) -> None:
    case = load(CLAIM)[0].cases[0]
    assert Contrast(case, case, 0.0).says == "more than 0"
    assert Contrast(case, case, -0.001).says == "more than -0.1"
    assert Contrast(case, case, -0.003, 0.003).says == "within ±0.3"
