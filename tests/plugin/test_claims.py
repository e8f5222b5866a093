"""Claims in a session: their runs, their verdicts, the table, and what fails."""

from pathlib import Path

import pandas as pd
import pytest

from ..conftest import Project

CLAIMS_MODULE = (Path(__file__).parents[2] / "bench" / "test_claims.py").read_text(encoding="utf-8")

CLAIMS = """
schema = 1

[[claim]]
name = "batch-is-much-better"
statement = "Batch beats layer normalization by 90 points."
source = "nobody"
tier = "smoke"
grid = "tiny"
seeds = 3
expected = "{expected}"

[[claim.contrast]]
at = {{ batch_size = 64 }}
first = {{ norm = "batch" }}
second = {{ norm = "layer" }}
more_than = 90

[[claim]]
name = "means"
statement = "Batch normalization computes a mean a channel."
source = "its paper"
tier = "smoke"
images = 3
channels = 8
means = {{ batch = 8 }}
"""


def write_claims(project: Project, expected: str = "refuted") -> None:
    """Write the test of claims, and two claims, of which the first one is refuted."""
    project.write("bench/test_claims.py", CLAIMS_MODULE)
    project.write("bench/cases/claims.toml", CLAIMS.format(expected=expected))


def test_a_refuted_claim_is_a_result(project: Project) -> None:
    write_claims(project)
    result = project.run("-k", "test_claim")
    result.assert_outcomes(passed=4, deselected=0 if project.spread else 4)
    result.stdout.fnmatch_lines(
        [
            "*normbench: claims*",
            "batch-is-much-better *batch-none-b64 less layer-none-b64 *more than 90*",
            "refuted *batch-is-much-better *refuted",
            "1 holds, 1 refuted",
        ]
    )
    assert len(project.rows) == 6
    assert project.claim_verdicts == {"batch-is-much-better": "refuted", "means": "holds"}
    # batch normalization has one mean for each of the eight channels
    assert [list(stored.found.values()) for _, stored in project.stored.claims] == [[], [8]]
    table = pd.read_csv(project.session / "tables" / "claims.csv")
    assert table["verdict"].tolist() == ["refuted", "holds"]
    assert table["difference_points"][0] < 90
    assert (project.session / "tables" / "claims-tiny.md").exists()
    report = (project.session / "report.html").read_text(encoding="utf-8")
    assert "beats layer normalization by 90" in report
    summary = (project.session / "summary.md").read_text(encoding="utf-8")
    assert "| refuted   | batch-is-much-better |" in summary


def test_a_verdict_that_is_not_on_record_fails_the_session(alone: Project) -> None:
    write_claims(alone, expected="holds")
    result = alone.run()
    result.assert_outcomes(passed=7, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["refuted (!) *batch-is-much-better *holds"])
    summary = (alone.session / "summary.md").read_text(encoding="utf-8")
    assert "1 of them not as expected" in summary


def test_the_runs_of_a_grid_serve_its_claims(alone: Project) -> None:
    write_claims(alone)
    alone.run("--bench-seeds", "3").assert_outcomes(passed=8)
    assert len(alone.rows) == 4 * 3


def test_one_claim_can_be_asked_for_alone(alone: Project) -> None:
    write_claims(alone)
    alone.run("-k", "test_claim and means").assert_outcomes(passed=1, deselected=7)
    assert alone.claim_verdicts == {"means": "holds"}
    assert not (alone.session / "runs.jsonl").exists()
    assert (alone.session / "report.html").exists()
    alone.run("-k", "test_claim and much").assert_outcomes(passed=1, deselected=7)
    assert alone.claim_verdicts == {"batch-is-much-better": "refuted"}
    assert len(alone.rows) == 6


def test_norms_that_stand_alone_leave_no_claims(alone: Project) -> None:
    write_claims(alone)
    target = ("--bench-target", "5")
    result = alone.run("--bench-norm", "group:2", "--bench-norm-only", *target)
    result.assert_outcomes(passed=2, deselected=2)


def test_claims_of_ones_own_are_a_cases_file(alone: Project) -> None:
    alone.write("bench/test_claims.py", CLAIMS_MODULE)
    alone.write("mine.toml", CLAIMS.format(expected="refuted"))
    result = alone.run("--bench-cases", "mine.toml", "-k", "test_claim")
    result.assert_outcomes(passed=4, deselected=4)


def test_a_run_that_diverged_leaves_its_claim_without_a_verdict(alone: Project) -> None:
    write_claims(alone)
    alone.norm("Exploding", "return x * 1e30 * 1e30")
    alone.grid(norms=["batch", "layer", "own_norms:Exploding"])
    alone.edit("bench/cases/claims.toml", '"layer"', '"own_norms:Exploding"')
    result = alone.run("-k", "test_claim and much")
    result.assert_outcomes(failed=1, deselected=9)
    result.stdout.fnmatch_lines(["not judged (!) *batch-is-much-better *seed 0: diverged"])
    assert alone.claim_verdicts == {"batch-is-much-better": "not judged"}


def test_no_grid_may_take_the_name_of_the_claims_tables(alone: Project) -> None:
    write_claims(alone)
    cases = alone.path / "bench" / "cases"
    (cases / "tiny.toml").rename(cases / "claims-tiny.toml")
    result = alone.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*a grid cannot be called 'claims-tiny'*rename the cases file*"])
