"""Claims in a session: their runs, their verdicts, the table, and what fails."""

import json
from pathlib import Path

import pandas as pd
import pytest

from ..conftest import Project
from .test_sessions import rows

CLAIMS_MODULE = (Path(__file__).parents[2] / "bench" / "test_claims.py").read_text()

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


@pytest.fixture
def claims(project: Project) -> Project:
    project.write("bench/test_claims.py", CLAIMS_MODULE)
    project.write("bench/cases/claims.toml", CLAIMS.format(expected="refuted"))
    return project


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "2"]])
def test_a_refuted_claim_is_a_result(claims, workers):
    result = claims.pytester.runpytest_inprocess("bench/test_claims.py", *workers)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "*normbench: claims*",
            "batch-is-much-better *batch-none-b64 less layer-none-b64 *more than 90*",
            "refuted *batch-is-much-better *refuted",
            "1 holds, 1 refuted",
        ]
    )
    assert len(rows(claims)) == 6
    stored = json.loads((claims.session / "session.json").read_text())
    assert stored["claims"] == {"batch-is-much-better": "refuted", "means": "holds"}
    table = pd.read_csv(claims.session / "tables" / "claims.csv")
    assert table["verdict"].tolist() == ["refuted", "holds"]
    assert table["difference_points"][0] < 90
    assert (claims.session / "tables" / "claims-tiny.md").exists()
    assert "beats layer normalization by 90" in (claims.session / "report.html").read_text()
    assert "| refuted   | batch-is-much-better |" in (claims.session / "summary.md").read_text()


def test_a_verdict_that_is_not_on_record_fails_the_session(claims):
    claims.write("bench/cases/claims.toml", CLAIMS.format(expected="holds"))
    result = claims.run()
    result.assert_outcomes(passed=7, failed=1)
    result.stdout.fnmatch_lines(["refuted (!) *batch-is-much-better *holds"])
    assert "1 of them not as expected" in (claims.session / "summary.md").read_text()


def test_the_runs_of_a_grid_serve_its_claims(claims):
    claims.run("--bench-seeds", "3")
    assert len(rows(claims)) == 4 * 3


def test_one_claim_can_be_asked_for_alone(claims):
    claims.run("-k", "test_claim and means").assert_outcomes(passed=1, deselected=7)
    assert not (claims.session / "runs.jsonl").exists()
    assert (claims.session / "report.html").exists()
    claims.run("-k", "test_claim and much").assert_outcomes(passed=1, deselected=7)
    assert len(rows(claims)) == 6


def test_norms_that_stand_alone_leave_no_claims(claims):
    result = claims.run("--bench-norm", "group:2", "--bench-norm-only")
    result.assert_outcomes(passed=2, deselected=2)


def test_claims_of_ones_own_are_a_cases_file(project):
    project.write("bench/test_claims.py", CLAIMS_MODULE)
    file = project.write("mine.toml", CLAIMS.format(expected="refuted"))
    project.run("--bench-cases", str(file), "-k", "test_claim").assert_outcomes(
        passed=4, deselected=4
    )


def test_a_run_that_diverged_leaves_its_claim_without_a_verdict(claims):
    claims.norm("Exploding", "return x * 1e30 * 1e30")
    norms = ["batch", "layer", "own_norms:Exploding"]
    claims.grid(norms=norms)
    text = CLAIMS.format(expected="refuted").replace('"layer"', '"own_norms:Exploding"')
    claims.write("bench/cases/claims.toml", text)
    result = claims.run("-k", "test_claim and much")
    result.assert_outcomes(failed=1, deselected=9)
    result.stdout.fnmatch_lines(["not judged (!) *batch-is-much-better *seed 0: diverged"])


def test_no_grid_may_take_the_name_of_the_claims_tables(claims):
    (claims.path / "bench/cases/tiny.toml").rename(claims.path / "bench/cases/claims-tiny.toml")
    result = claims.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*a grid cannot be called 'claims-tiny'*rename the cases file*"])
