"""Checks in a session: for which tiers, stored, told, and what fails."""

from pathlib import Path

import pytest

from normbench.models.families import FAMILIES
from normbench.models.networks import NETWORKS
from normbench.models.regularizers import REGULARIZERS

from ..conftest import Project

SUITE = Path(__file__).parents[2] / "bench" / "test_conformance.py"


@pytest.fixture
def checking(project: Project) -> Project:
    """Return a project with the suite's test of conformance."""
    project.write("bench/test_conformance.py", SUITE.read_text(encoding="utf-8"))
    return project


def test_checks_belong_to_the_standard_tier(checking: Project) -> None:
    listed = checking.run("--collect-only", "-q", "--bench-tier", "standard").outlines
    assert "bench/test_conformance.py::test_norm[group:4]" in listed
    assert "bench/test_conformance.py::test_regularizer[l1:0.001+l2:0.001]" in listed
    assert "bench/test_conformance.py::test_network[cifar10]" in listed
    smoke = checking.run("--collect-only", "-q", "--bench-tier", "smoke").outlines
    assert not [line for line in smoke if "test_conformance" in line]


def test_a_session_of_checks_alone_is_stored_and_told(checking: Project) -> None:
    result = checking.run("-k", "test_regularizer or (test_network and digits)")
    # all regularizers, with none of them and with two together, and a network
    passed = len(REGULARIZERS) + 2 + 1
    others = len(FAMILIES) + len(NETWORKS) - 1 + 4  # the last are the cases of the tiny grid
    result.assert_outcomes(passed=passed, deselected=0 if checking.spread else others)
    result.stdout.fnmatch_lines(["*normbench: checks*", "network digits: 23 holds (* s)"])
    found = checking.stored.checks
    assert {c.subject for c in found if c.kind == "regularizer"} == {
        "none",
        *(f"{name}:0.001" for name in REGULARIZERS),
        "l1:0.001+l2:0.001",
    }
    assert checking.stored.document.status == "finished"
    assert "**No pass" not in (checking.session / "summary.md").read_text(encoding="utf-8")
    report = (checking.session / "report.html").read_text(encoding="utf-8")
    assert "<h2>Checks</h2>" in report
    assert "acts on every parameter" in report


def test_what_is_broken_fails_its_test_and_stands_in_summary_and_report(alone: Project) -> None:
    alone.write("bench/test_conformance.py", SUITE.read_text(encoding="utf-8"))
    alone.norm("Squared", "return x - x.mean()")
    result = alone.run(
        *("-k", "test_norm", "--bench-norm", "own_norms:Squared", "--bench-norm-only")
    )
    # all regularizers, as above, and networks, and the tiny grid's cases with this norm
    others = len(REGULARIZERS) + 2 + len(NETWORKS) + 2
    result.assert_outcomes(failed=1, deselected=others)
    (found,) = alone.stored.checks
    assert found.broken == [
        "statistics, independent of the other images, evaluation: the others change an image's "
        f"output by up to {found.broken[0].split('up to ')[1]}"
    ]
    summary = (alone.session / "summary.md").read_text(encoding="utf-8")
    assert f"**norm own_norms:Squared:** {found.broken[0]}" in summary
    report = (alone.session / "report.html").read_text(encoding="utf-8")
    assert '<tr class="failed"><td>statistics</td>' in report


def test_a_mark_of_a_foreign_test_gives_nothing_that_it_has_itself(alone: Project) -> None:
    alone.write(
        "bench/test_tiny.py",
        "import pytest\n\n"
        "@pytest.mark.conformance()\n@pytest.mark.parametrize('norm', ['l2', 'max'])\n"
        "def test_of_their_own(norm):\n    assert norm in ('l2', 'max')\n",
    )
    alone.run().assert_outcomes(passed=2)
